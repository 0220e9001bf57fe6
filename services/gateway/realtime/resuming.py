"""A session as its client was told of it, made again from its events: what he missed, and the answers that were being
given, each as far as it was told."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from antiphon.errors import InternalError
from antiphon.telemetry.playback import Playback
from services.gateway.realtime.core.answer import Answer
from services.gateway.realtime.core.items import SAMPLE_RATES_HZ, Encoding
from services.gateway.realtime.core.response import AnswerOptions, Response
from services.gateway.realtime.core.session import Session
from services.gateway.realtime.dialect.frames import Frame
from services.gateway.realtime.session_keeper import Found, SessionKeeper
from services.gateway.turns.answer_place import AnswerPlace

_ENCODINGS: Final[Mapping[str, Encoding]] = {"audio/pcm": "pcm", "audio/pcmu": "pcmu", "audio/pcma": "pcma"}
_TEXTS: Final = ("response.output_audio_transcript.delta", "response.output_text.delta")


@dataclass(frozen=True, slots=True)
class ResumedAnswer:
    """A response that another gateway was giving."""

    response: Response
    # What its client was told of it; sound is counted at 24 kHz, and in bytes of its encoding.
    place: AnswerPlace
    sound_bytes: int

    @property
    def may_be_asked_again(self) -> bool:
        """Nothing was told of it, and all that it was asked with is there."""
        response = self.response
        return self.place == AnswerPlace() and response.in_conversation and not response.is_asked_apart


@dataclass(frozen=True, slots=True)
class Missed:
    """What a client is told who comes back."""

    # From the one after his last on.
    frames: tuple[Frame, ...]
    # All events of the responses that are being given, by response.
    answering: Mapping[str, tuple[Frame, ...]]
    # Those of them with instructions, tools or input of their own.
    asked_apart: tuple[str, ...]


async def missed_since(
    keeper: SessionKeeper, tenant: str, session_id: str, found: Found, last_event: int
) -> Missed | None:
    """None where it is not known any more, or never was."""
    if last_event > found.last_event:
        return None
    answering = found.session.answering
    begin = min([last_event + 1, *answering.values()])
    frames = await keeper.frames(tenant, session_id, begin, found, last_event)
    if frames is None:
        return None
    mine = {
        response_id: tuple(frame for frame in frames if frame.number >= first and f'"{response_id}"' in frame.bare)
        for response_id, first in answering.items()
    }
    return Missed(tuple(frame for frame in frames if frame.number > last_event), mine, found.session.asked_apart)


def answers_again(session: Session, missed: Missed, last_event: int, playback: Playback) -> list[ResumedAnswer]:
    """The session gives them again, as far as they were told. playback: of its listener, who plays what he missed as
    soon as he gets it. Raises InternalError."""
    try:
        return [
            _answer_again(session, frames, last_event, playback, asked_apart=response_id in missed.asked_apart)
            for response_id, frames in missed.answering.items()
        ]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InternalError(f"The events of a session cannot be read ({type(error).__name__}).") from None


def _answer_again(
    session: Session, frames: Sequence[Frame], last_event: int, playback: Playback, *, asked_apart: bool
) -> ResumedAnswer:
    events = [(json.loads(frame.bare), frame) for frame in frames]
    response = replace(_response(events[0][0]["response"], session.config.answers), is_asked_apart=asked_apart)
    answer = session.resume(response, _ids(event for event, _ in events))
    characters = samples = sound_bytes = 0
    for event, frame in events:
        characters += _retell(answer, event, frame)
        if frame.sample_count:
            moment = time.monotonic() - (max(0.0, time.time() - frame.at_seconds) if frame.number <= last_event else 0)
            session.heard_by(response.id, playback.deliver(frame.sample_count, moment))
        samples, sound_bytes = samples + frame.sample_count, sound_bytes + _sound_bytes(event, frame, response)
    return ResumedAnswer(response, AnswerPlace(characters, samples), sound_bytes)


def _retell(answer: Answer, event: Mapping[str, Any], frame: Frame) -> int:
    """How many characters of the answer it tells, as `Delivery` counts them."""
    match event["type"]:
        case kind if kind in _TEXTS:
            answer.said(event["delta"])
            return len(event["delta"])
        case "response.output_audio.delta":
            answer.spoke(frame.sample_count, b"told")
        case "response.function_call_arguments.delta":
            answer.argued(event["delta"])
            return len(event["delta"])
        case "response.output_item.added" if event["item"]["type"] == "function_call":
            answer.called(event["item"]["name"])
            return 1
    return 0


def _ids(events: Iterator[Mapping[str, Any]]) -> list[str]:
    """In the order in which an answer makes them."""
    items = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    return [made for item in items for made in (item["id"], item.get("call_id")) if made is not None]


def _response(told: Mapping[str, Any], options: AnswerOptions) -> Response:
    """As `Teller` told it. options: of its session."""
    sound = (told["audio"] or {}).get("output", {"voice": "", "format": {"type": "audio/pcm"}})
    most = told["max_output_tokens"]
    options = options.told_of(
        speaks=told["output_modalities"] == ["audio"],
        voice=sound["voice"],
        encoding=_ENCODINGS[sound["format"]["type"]],
        max_answer_tokens=None if most == "inf" else most,
    )
    return Response(told["id"], options, told["conversation_id"] is not None, told["metadata"])


def _sound_bytes(event: Mapping[str, Any], frame: Frame, response: Response) -> int:
    """Sound that was forgotten had as many as its samples make, but for what a resampler held."""
    if event["type"] != "response.output_audio.delta":
        return 0
    rate = SAMPLE_RATES_HZ[response.options.encoding]
    return len(frame.sound) or frame.sample_count * rate // SAMPLE_RATES_HZ["pcm"] * (2 if rate > 8_000 else 1)
