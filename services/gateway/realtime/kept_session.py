"""A live session as it is kept, and back: its configuration and its items, with media named by their hash.

What only this protocol knows is beside the configuration: how sounds were sent, what images are, and of the newest
spoken answers which words were said when, so that they can still be cut.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic import JsonValue

from antiphon.errors import InternalError
from antiphon.sessions import conversation as kept
from antiphon.sessions.conversation import Conversation
from services.gateway.realtime.core.alignment import Alignment
from services.gateway.realtime.core.items import (
    SAMPLE_RATES_HZ,
    AssistantItem,
    CallItem,
    CallOutputItem,
    InputImage,
    InputPart,
    InputSound,
    InputText,
    Item,
    OutputPart,
    OutputSpeech,
    OutputText,
    SystemItem,
    UserItem,
)

# Listeners may still cut these answers; older ones stay as they are.
_CUTTABLE_ANSWERS: Final = 8
_SAMPLES_PER_MS: Final = SAMPLE_RATES_HZ["pcm"] // 1000

_TOLD: Final = ("session", "has_spoken", "connection_id", "parts")
# What sessions have that releases before this one kept, too.
_SINCE_THEN: Final = {"answering": {}, "asked_apart": [], "transcribing": [], "owes_answer": False, "event_count": 0}

# Of a part of an item.
Place = tuple[str, int]
_Details = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeptSession:
    # The session object, as its client sees it.
    values: dict[str, JsonValue]
    items: tuple[Item, ...]
    has_spoken: bool
    # Of the connection that kept it.
    connection_id: str
    # Responses that are being given, and the number of the first event of each.
    answering: Mapping[str, int] = field(default_factory=dict)
    # Those of them with instructions, tools or input of their own.
    asked_apart: tuple[str, ...] = ()
    # Sounds that are being written down: an item's id, and the index of its part.
    transcribing: tuple[Place, ...] = ()
    # The user has said something that is answered once the response under way is over.
    owes_answer: bool = False
    # So many events had been told.
    event_count: int = 0


def media_of(items: tuple[Item, ...]) -> Iterator[tuple[Place, bytes]]:
    for item in items:
        for index, part in enumerate(item.parts if isinstance(item, UserItem) else ()):
            if isinstance(part, InputSound):
                yield (item.id, index), part.pcm16
            elif isinstance(part, InputImage):
                yield (item.id, index), part.data


def conversation_of(
    session_id: str, session: KeptSession, hashes: Mapping[Place, str], created_at: float, now: float
) -> Conversation:
    """hashes: of the media that are kept."""
    told = {
        "session": session.values,
        "has_spoken": session.has_spoken,
        "connection_id": session.connection_id,
        "parts": _details(session.items),
        "answering": dict(session.answering),
        "asked_apart": session.asked_apart,
        "transcribing": session.transcribing,
        "owes_answer": session.owes_answer,
        "event_count": session.event_count,
    }
    items = tuple(_kept_item(item, hashes) for item in session.items)
    return Conversation(session_id, created_at, now, items, json.dumps(told, separators=(",", ":")))


def connection_of(conversation: Conversation) -> str:
    return str(_told(conversation)["connection_id"])


def owned_by(connection_id: str, conversation: Conversation) -> Conversation:
    told = json.loads(conversation.configuration) | {"connection_id": connection_id}
    return replace(conversation, configuration=json.dumps(told, separators=(",", ":")))


def hashes_of(conversation: Conversation) -> set[str]:
    parts = [part for item in conversation.items if isinstance(item, kept.Message) for part in item.parts]
    found = {part.media for part in parts if isinstance(part, kept.AudioPart | kept.ImagePart)}
    return {content_hash for content_hash in found if content_hash}


def session_of(conversation: Conversation, media: Mapping[str, bytes]) -> KeptSession:
    """A sound that is not in `media` becomes what was understood of it; an image is left out."""
    told = _told(conversation)
    details: Mapping[str, _Details] = told["parts"]
    items = tuple(_item(item, details.get(item.id, {}), media) for item in conversation.items)
    return KeptSession(
        told["session"],
        items,
        bool(told["has_spoken"]),
        told["connection_id"],
        answering=told["answering"],
        asked_apart=tuple(told["asked_apart"]),
        transcribing=tuple((item_id, index) for item_id, index in told["transcribing"]),
        owes_answer=bool(told["owes_answer"]),
        event_count=int(told["event_count"]),
    )


def _told(conversation: Conversation) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(conversation.configuration)
        return _SINCE_THEN | told | {key: told[key] for key in _TOLD}
    except (ValueError, KeyError, TypeError) as error:
        raise InternalError(f"A kept session cannot be read ({type(error).__name__}).") from None


def _details(items: tuple[Item, ...]) -> dict[str, _Details]:
    """By item and part, of those that have any."""
    answers = [item for item in items if isinstance(item, AssistantItem)]
    cuttable = {item.id for item in answers[-_CUTTABLE_ANSWERS:]}
    found: dict[str, _Details] = {}
    for item in items:
        if not isinstance(item, UserItem) and item.id not in cuttable:
            continue
        parts = item.parts if isinstance(item, UserItem | AssistantItem) else ()
        told = {str(index): detail for index, part in enumerate(parts) if (detail := _detail(part)) is not None}
        if told:
            found[item.id] = told
    return found


def _detail(part: InputPart | OutputPart) -> JsonValue:
    match part:
        case InputSound(encoding=encoding):
            return None if encoding == "pcm" else encoding
        case InputImage(media_type=media_type):
            return media_type
        case OutputSpeech(alignment=Alignment(starts, pace)):
            return [part.sample_count, part.sent_count, pace, [number for start in starts for number in start]]
        case _:
            return None


def _kept_item(item: Item, hashes: Mapping[Place, str]) -> kept.Item:
    match item:
        case CallItem():
            return kept.FunctionCall(item.id, item.call_id, item.name, item.arguments, item.status)
        case CallOutputItem():
            return kept.FunctionCallOutput(item.id, item.call_id, item.output, item.status)
        case UserItem():
            parts = tuple(_kept_input(part, hashes.get((item.id, i))) for i, part in enumerate(item.parts))
            return kept.Message(item.id, "user", parts, item.status)
        case SystemItem():
            return kept.Message(item.id, "system", tuple(kept.TextPart(p.text) for p in item.parts), item.status)
        case AssistantItem():
            return kept.Message(item.id, "assistant", tuple(map(_kept_output, item.parts)), item.status)


def _kept_input(part: InputPart, content_hash: str | None) -> kept.Part:
    """An image without a hash is named by none, so that the parts behind it keep their places."""
    match part:
        case InputText(text):
            return kept.TextPart(text)
        case InputSound():
            return kept.AudioPart(content_hash, part.transcript)
        case InputImage():
            return kept.ImagePart(content_hash or "")


def _kept_output(part: OutputPart) -> kept.Part:
    if isinstance(part, OutputText):
        return kept.TextPart(part.text)
    return kept.AudioPart(None, part.transcript, None if part.alignment is None else part.heard_ms)


def _item(item: kept.Item, details: _Details, media: Mapping[str, bytes]) -> Item:
    match item:
        case kept.FunctionCall():
            return CallItem(item.id, item.call_id, item.name, item.arguments, item.status)
        case kept.FunctionCallOutput():
            return CallOutputItem(item.id, item.call_id, item.output, item.status)
        case kept.Message(role="user"):
            found = [_input(part, details.get(str(i)), media) for i, part in enumerate(item.parts)]
            return UserItem(item.id, tuple(part for part in found if part is not None), item.status)
        case kept.Message(role="system"):
            texts = tuple(InputText(part.text) for part in item.parts if isinstance(part, kept.TextPart))
            return SystemItem(item.id, texts, item.status)
        case _:
            parts = tuple(_output(part, details.get(str(i))) for i, part in enumerate(item.parts))
            return AssistantItem(item.id, parts, item.status)


def _input(part: kept.Part, detail: Any, media: Mapping[str, bytes]) -> InputPart | None:
    match part:
        case kept.TextPart(text):
            return InputText(text)
        case kept.AudioPart(content_hash, transcript):
            if content_hash is not None and content_hash in media:
                return InputSound(media[content_hash], detail or "pcm", transcript)
            return None if transcript is None else InputText(transcript)
        case kept.ImagePart(content_hash):
            return InputImage(media[content_hash], detail) if content_hash in media else None


def _output(part: kept.Part, detail: Any) -> OutputPart:
    if not isinstance(part, kept.AudioPart):
        return OutputText(part.text if isinstance(part, kept.TextPart) else "")
    transcript = part.transcript or ""
    if detail is None:
        return OutputSpeech(transcript, (part.heard_ms or 0) * _SAMPLES_PER_MS)
    sample_count, sent_count, pace, starts = detail
    alignment = Alignment(tuple(zip(starts[::2], starts[1::2], strict=True)), pace)
    return OutputSpeech(transcript, sample_count, alignment, sent_count)
