"""What another gateway needs to give an answer again: the turn as it was asked, and how its client is told of it.

JSON; media are named by the hash of their content, which `MediaStore` keeps.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from antiphon.errors import InternalError, Unavailable
from antiphon.prompt.conversation import Audio, Conversation, Image, Message, Part, Text, ToolCall, Video
from antiphon.v1.generation_pb2 import Sampling
from services.gateway.turns.answer_parts import AnswerForm
from services.gateway.turns.request import AnswerGrammar, Medium, SpeechRequest, TurnRequest, TurnScheduling

FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class MediumName:
    """A medium without its bytes."""

    content_hash: str
    byte_count: int
    modality: int
    param: str
    video_fps: float | None
    use_audio_in_video: bool

    @classmethod
    def of(cls, medium: Medium, content_hash: str) -> "MediumName":
        kind = (medium.modality, medium.param, medium.video_fps, medium.use_audio_in_video)
        return cls(content_hash, len(medium.data), *kind)

    def with_data(self, data: bytes) -> Medium:
        return Medium(self.modality, data, self.param, self.video_fps, self.use_audio_in_video)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class TurnRecord:
    # Its media are elsewhere; its seeds are drawn.
    request: TurnRequest
    media: tuple[MediumName, ...]
    # Of the gateway that began it: what an answer without a bound of its own may have.
    default_answer_tokens: int
    # JSON of whoever tells the answer; nobody here looks inside.
    telling: str


def pack_record(record: TurnRecord) -> bytes:
    told = {
        "format": FORMAT,
        "request": _told_request(record.request),
        "media": [asdict(medium) for medium in record.media],
        "default_answer_tokens": record.default_answer_tokens,
        "telling": record.telling,
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def unpack_record(data: bytes) -> TurnRecord:
    """Raises Unavailable for one that another release wrote, InternalError for what is none."""
    try:
        told = json.loads(data.decode("utf-8", "surrogatepass"))
        if told["format"] != FORMAT:
            raise Unavailable(
                f"The answer was begun by another release: this one reads format {FORMAT}; came {told['format']}. "
                "Try again when all gateways run the same release."
            )
        return TurnRecord(
            _request(told["request"]),
            tuple(MediumName(**medium) for medium in told["media"]),
            told["default_answer_tokens"],
            told["telling"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InternalError(f"The record of a turn cannot be read ({type(error).__name__}).") from None


def _told_request(request: TurnRequest) -> dict[str, Any]:
    """Fields without a line of their own are JSON as they are."""
    speech = request.speech
    return {
        "conversation": _told_conversation(request.conversation),
        "sampling": _text(request.sampling.SerializeToString()),
        "max_answer_tokens": request.max_answer_tokens,
        "stop": request.stop,
        "speech": None
        if speech is None
        else [speech.voice, _text(speech.sampling.SerializeToString()), speech.max_frames],
        "cache_salt": _text(request.cache_salt),
        "scheduling": asdict(request.scheduling),
        "context_tokens": request.context_tokens,
        "form": {**asdict(request.form), "tools": sorted(request.form.tools)},
        "most_calls": request.most_calls,
        "grammar": None if request.grammar is None else asdict(request.grammar),
        "affinity": _text(request.affinity),
    }


def _request(told: Mapping[str, Any]) -> TurnRequest:
    speech, grammar = told["speech"], told["grammar"]
    return TurnRequest(
        conversation=_conversation(told["conversation"]),
        media=(),
        sampling=Sampling.FromString(_bytes(told["sampling"])),
        max_answer_tokens=told["max_answer_tokens"],
        stop=tuple(told["stop"]),
        speech=None if speech is None else SpeechRequest(speech[0], Sampling.FromString(_bytes(speech[1])), speech[2]),
        cache_salt=_bytes(told["cache_salt"]),
        scheduling=TurnScheduling(**told["scheduling"]),
        context_tokens=told["context_tokens"],
        form=AnswerForm(**{**told["form"], "tools": frozenset(told["form"]["tools"])}),
        most_calls=told["most_calls"],
        grammar=None if grammar is None else AnswerGrammar(**grammar),
        affinity=_bytes(told["affinity"]),
    )


def _told_conversation(conversation: Conversation) -> dict[str, Any]:
    messages = [
        {
            "role": message.role,
            "parts": [_told_part(part) for part in message.parts],
            "calls": [[call.name, call.arguments] for call in message.tool_calls],
        }
        for message in conversation.messages
    ]
    return {"messages": messages, "enable_thinking": conversation.enable_thinking, "tools": conversation.tools}


def _conversation(told: Mapping[str, Any]) -> Conversation:
    messages = (
        Message(
            message["role"],
            tuple(_part(part) for part in message["parts"]),
            tuple(ToolCall(name, arguments) for name, arguments in message["calls"]),
        )
        for message in told["messages"]
    )
    return Conversation(tuple(messages), told["enable_thinking"], tuple(told["tools"]))


def _told_part(part: Part) -> Sequence[Any]:
    match part:
        case Text(text):
            return ["text", text]
        case Audio():
            return ["audio"]
        case Image():
            return ["image"]
        case Video(with_sound):
            return ["video", with_sound]


def _part(told: Sequence[Any]) -> Part:
    match told:
        case ["text", str(text)]:
            return Text(text)
        case ["audio"]:
            return Audio()
        case ["image"]:
            return Image()
        case ["video", bool(with_sound)]:
            return Video(with_sound)
    raise ValueError("a part of a message")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
