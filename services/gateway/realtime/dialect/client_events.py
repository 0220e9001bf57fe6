"""What a client may send: its events, strictly typed and bounded, and how a frame becomes one."""

from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import from_json

from antiphon.errors import InvalidInput
from services.gateway.http.invalid_body import invalid_body
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.dialect.part import Part
from services.gateway.realtime.dialect.session_object import (
    AudioOutput,
    FunctionTool,
    MaxTokens,
    Modalities,
    ToolChoice,
)

_VALUE_MARKS: Final = (b",", b"[", b"{")
Id = Annotated[str, Field(min_length=1, max_length=512)]


class ClientEvent(Part):
    # Chosen by the client; comes back in an error that it causes.
    event_id: Annotated[str, Field(max_length=512)] | None = None


class ContentPart(Part):
    type: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio", "text"]
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None
    image_url: str | None = None


Content = Annotated[list[ContentPart], Field(max_length=64)]


class MessageItem(Part):
    type: Literal["message"]
    id: Id | None = None
    role: Literal["user", "assistant", "system"]
    content: Content


class FunctionCallItem(Part):
    type: Literal["function_call"]
    id: Id | None = None
    call_id: Id | None = None
    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: str


class FunctionOutputItem(Part):
    type: Literal["function_call_output"]
    id: Id | None = None
    call_id: Id
    output: str


class ItemReference(Part):
    type: Literal["item_reference"]
    id: Id


NewItem = MessageItem | FunctionCallItem | FunctionOutputItem


class SessionUpdate(ClientEvent):
    type: Literal["session.update"]
    # Validated once it has been merged into what the session is.
    session: dict[str, JsonValue]


class AppendSound(ClientEvent):
    type: Literal["input_audio_buffer.append"]
    audio: str


class CommitSound(ClientEvent):
    type: Literal["input_audio_buffer.commit"]


class ClearSound(ClientEvent):
    type: Literal["input_audio_buffer.clear"]


class CreateItem(ClientEvent):
    type: Literal["conversation.item.create"]
    item: Annotated[NewItem, Field(discriminator="type")]
    previous_item_id: Id | None = None


class RetrieveItem(ClientEvent):
    type: Literal["conversation.item.retrieve"]
    item_id: Id


class TruncateItem(ClientEvent):
    type: Literal["conversation.item.truncate"]
    item_id: Id
    content_index: int = Field(ge=0, le=63)
    audio_end_ms: int = Field(ge=0, le=1 << 31)


class DeleteItem(ClientEvent):
    type: Literal["conversation.item.delete"]
    item_id: Id


class ResponseAudio(Part):
    output: AudioOutput = AudioOutput()


class ResponseParams(Part):
    """What is absent or null is as in the session."""

    conversation: Literal["auto", "none"] | None = "auto"
    input: (
        Annotated[list[Annotated[NewItem | ItemReference, Field(discriminator="type")]], Field(max_length=1024)] | None
    ) = None
    instructions: str | None = None
    output_modalities: Modalities | None = None
    tools: Annotated[list[FunctionTool], Field(max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    max_output_tokens: MaxTokens | None = None
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
        ]
        | None
    ) = None
    audio: ResponseAudio | None = None


class CreateResponse(ClientEvent):
    type: Literal["response.create"]
    response: ResponseParams | None = None


class CancelResponse(ClientEvent):
    type: Literal["response.cancel"]
    response_id: Id | None = None


class ClearOutput(ClientEvent):
    """Known, so that it can be told that a web socket has no such buffer."""

    type: Literal["output_audio_buffer.clear"]


AnyEvent = Annotated[
    SessionUpdate
    | AppendSound
    | CommitSound
    | ClearSound
    | CreateItem
    | RetrieveItem
    | TruncateItem
    | DeleteItem
    | CreateResponse
    | CancelResponse
    | ClearOutput,
    Field(discriminator="type"),
]
_EVENTS: Final[TypeAdapter[AnyEvent]] = TypeAdapter(AnyEvent)


def read_event(frame: bytes, settings: RealtimeSettings) -> AnyEvent:
    """Takes CPU time for a large frame. Raises InvalidInput."""
    check_frame(frame, settings)
    try:
        return _EVENTS.validate_json(frame)
    except ValidationError as error:
        found = invalid_body(error, bytearray(frame))
        if found.code == "invalid_json":
            raise InvalidInput(
                "The frame is not valid JSON. Send one event as a JSON object.", code=found.code
            ) from None
        raise found from None


def check_frame(frame: bytes, settings: RealtimeSettings) -> None:
    if len(frame) > settings.frame_bytes:
        raise InvalidInput(
            f"The frame is too large: at most {settings.frame_bytes} bytes; got {len(frame)}. Send sound in pieces.",
            code="frame_too_large",
        )
    if len(frame) > settings.frame_values and sum(map(frame.count, _VALUE_MARKS)) > settings.frame_values:
        raise InvalidInput(f"The frame holds too many values: at most {settings.frame_values}.", code="frame_too_large")


def event_id_of(frame: bytes) -> str | None:
    """Of an event that cannot be read otherwise."""
    try:
        value: object = from_json(frame)
    except ValueError:
        return None
    event_id = value.get("event_id") if isinstance(value, dict) else None
    return event_id if isinstance(event_id, str) and len(event_id) <= 512 else None
