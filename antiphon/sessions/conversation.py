"""A conversation as it is kept: what was said, called and set, in no protocol's dialect."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from antiphon.sessions.progress import Progress

Role = Literal["system", "user", "assistant"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class AudioPart:
    # The content hash that `MediaStore.put` gave; None where the sound itself is not kept.
    media: str | None = None
    transcript: str | None = None
    # How much of an answer its listener heard before he interrupted it; None: all of it.
    heard_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ImagePart:
    media: str


Part: TypeAlias = TextPart | AudioPart | ImagePart


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    role: Role
    parts: tuple[Part, ...]
    status: ItemStatus = "completed"


@dataclass(frozen=True, slots=True)
class FunctionCall:
    id: str
    call_id: str
    name: str
    # JSON, as the model wrote it.
    arguments: str
    status: ItemStatus = "completed"


@dataclass(frozen=True, slots=True)
class FunctionCallOutput:
    id: str
    call_id: str
    output: str
    status: ItemStatus = "completed"


Item: TypeAlias = Message | FunctionCall | FunctionCallOutput


@dataclass(frozen=True, slots=True)
class TurnUnderWay:
    """The answer that was being given when the conversation was kept. `TurnJournal` has the id's latest progress."""

    turn_id: str
    prompt_ids: tuple[int, ...] = ()
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    # Since the epoch.
    created_at_seconds: float
    updated_at_seconds: float
    items: tuple[Item, ...] = ()
    # JSON of the dialect that leads the conversation; nobody here looks inside.
    configuration: str = "{}"
    turn: TurnUnderWay | None = None
