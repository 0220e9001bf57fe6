"""What a conversation is before it becomes numbers: turns of text and media, in the order in which they were said."""

from dataclasses import dataclass
from typing import Literal

from antiphon.errors import InvalidInput

Role = Literal["system", "user", "assistant", "tool"]
Modality = Literal["audio", "image", "video"]


@dataclass(frozen=True, slots=True)
class Text:
    text: str

    def __post_init__(self) -> None:
        if not self.text.isascii():
            _refuse_lone_surrogates(self.text)


@dataclass(frozen=True, slots=True)
class Audio:
    pass


@dataclass(frozen=True, slots=True)
class Image:
    pass


@dataclass(frozen=True, slots=True)
class Video:
    # Its own sound track, if it has one, is heard too, interleaved with its frames.
    with_sound: bool = False


Part = Text | Audio | Image | Video


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that an earlier answer called."""

    name: str
    # JSON, as it is to be written.
    arguments: str

    def __post_init__(self) -> None:
        _refuse_lone_surrogates(self.name + self.arguments)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Media stand for their bytes, which only the encoders see. A turn of role tool is what a call gave."""

    role: Role
    parts: tuple[Part, ...]
    # Of an assistant's turn, after its text.
    tool_calls: tuple[ToolCall, ...] = ()

    def __post_init__(self) -> None:
        if self.role != "user" and any(not isinstance(part, Text) for part in self.parts):
            raise InvalidInput(
                f"Expected only text in a {self.role} message; found a medium. "
                "Put sounds, images and videos into user messages.",
                param="messages",
            )


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: tuple[Message, ...]
    # None leaves the choice to the checkpoint's chat template.
    enable_thinking: bool | None = None
    # What the answer may call, each as the JSON in which the template tells it.
    tools: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.messages:
            raise InvalidInput("Expected at least one message; found none.", param="messages")
        for tool in self.tools:
            _refuse_lone_surrogates(tool)

    @property
    def media(self) -> tuple[Audio | Image | Video, ...]:
        """All media, in the order of the prompt."""
        return tuple(part for message in self.messages for part in message.parts if not isinstance(part, Text))


def modality_of(medium: Audio | Image | Video) -> Modality:
    match medium:
        case Audio():
            return "audio"
        case Image():
            return "image"
        case Video():
            return "video"


def _refuse_lone_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"Expected text that UTF-8 can carry; character {error.start} is half of a surrogate pair.",
            param="messages",
        ) from error
