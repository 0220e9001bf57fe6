"""What comes of a command or a fact: events that the client is told, and effects that the connection carries out."""

from dataclasses import dataclass, field
from typing import Literal

from services.gateway.realtime.core.items import InputSound, Item, OutputPart
from services.gateway.realtime.core.response import AnswerOptions, Failure, Response, Usage

# Events.


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    pass


@dataclass(frozen=True, slots=True)
class ItemAdded:
    item: Item
    previous_id: str | None


@dataclass(frozen=True, slots=True)
class ItemDone:
    item: Item
    previous_id: str | None


@dataclass(frozen=True, slots=True)
class ItemRetrieved:
    item: Item


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    item_id: str


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    item_id: str
    content_index: int
    audio_end_ms: int


@dataclass(frozen=True, slots=True)
class BufferCommitted:
    item_id: str
    previous_id: str | None


@dataclass(frozen=True, slots=True)
class BufferCleared:
    pass


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    audio_start_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    audio_end_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class IdleTimeout:
    audio_start_ms: int
    audio_end_ms: int
    item_id: str


@dataclass(frozen=True, slots=True)
class Transcribed:
    item_id: str
    content_index: int
    transcript: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class TranscriptionFailed:
    item_id: str
    content_index: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class ResponseCreated:
    response: Response


@dataclass(frozen=True, slots=True)
class ResponseDone:
    response: Response


@dataclass(frozen=True, slots=True)
class RateLimit:
    name: Literal["requests", "tokens"]
    limit: int
    remaining: int
    reset_seconds: float


@dataclass(frozen=True, slots=True)
class RateLimitsUpdated:
    limits: tuple[RateLimit, ...]


@dataclass(frozen=True, slots=True)
class OutputAdded:
    response_id: str
    output_index: int
    item: Item


@dataclass(frozen=True, slots=True)
class OutputDone:
    response_id: str
    output_index: int
    item: Item


@dataclass(frozen=True, slots=True)
class Place:
    """Of a part within a response."""

    response_id: str
    item_id: str
    output_index: int
    content_index: int = 0


@dataclass(frozen=True, slots=True)
class PartAdded:
    place: Place
    part: OutputPart


@dataclass(frozen=True, slots=True)
class PartDone:
    place: Place
    part: OutputPart


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Written, or what is being said."""

    place: Place
    text: str
    is_spoken: bool


@dataclass(frozen=True, slots=True)
class TextDone:
    place: Place
    text: str
    is_spoken: bool


@dataclass(frozen=True, slots=True)
class SoundPiece:
    place: Place
    # In the response's encoding.
    data: bytes = field(repr=False)
    # At 24 kHz, that came since the piece before.
    sample_count: int


@dataclass(frozen=True, slots=True)
class SoundDone:
    place: Place


@dataclass(frozen=True, slots=True)
class ArgumentsPiece:
    place: Place
    call_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ArgumentsDone:
    place: Place
    call_id: str
    name: str
    arguments: str


Event = (
    SessionUpdated
    | ItemAdded
    | ItemDone
    | ItemRetrieved
    | ItemDeleted
    | ItemTruncated
    | BufferCommitted
    | BufferCleared
    | SpeechStarted
    | SpeechStopped
    | IdleTimeout
    | Transcribed
    | TranscriptionFailed
    | ResponseCreated
    | RateLimitsUpdated
    | ResponseDone
    | OutputAdded
    | OutputDone
    | PartAdded
    | PartDone
    | TextPiece
    | TextDone
    | SoundPiece
    | SoundDone
    | ArgumentsPiece
    | ArgumentsDone
)


# Effects.


@dataclass(frozen=True, slots=True)
class StartAnswer:
    response: Response
    # What it answers, in order.
    items: tuple[Item, ...]
    # It answers a speech that has just ended.
    after_speech: bool


@dataclass(frozen=True, slots=True)
class StopAnswer:
    response_id: str


@dataclass(frozen=True, slots=True)
class ListenerStopped:
    """He plays no more of what he was sent."""


@dataclass(frozen=True, slots=True)
class Transcribe:
    item_id: str
    content_index: int
    sound: InputSound


@dataclass(frozen=True, slots=True)
class AnswerComing:
    """What will be asked begins like this."""

    options: AnswerOptions
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class AnswerForeseen:
    """A user has paused. If nothing more comes, exactly this will be asked."""

    options: AnswerOptions
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class NothingForeseen:
    """He goes on to speak."""


Effect = StartAnswer | StopAnswer | ListenerStopped | Transcribe | AnswerComing | AnswerForeseen | NothingForeseen
Outcome = Event | Effect
Outcomes = list[Outcome]
