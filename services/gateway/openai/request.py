"""The body of POST /v1/chat/completions, as published in the OpenAPI: OpenAI's fields and the extensions we serve.

Unknown fields are ignored, since every SDK release adds some; null means unset for every optional field. What is known
but not served yet is accepted here as any JSON and refused with a sentence in `request_validation`.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, JsonValue, Tag
from pydantic_core import PydanticCustomError

from services.gateway.openai.part import FIRST_FAULT, RequestPart
from services.gateway.openai.tools import EarlierCall, ResponseFormat, ToolChoice, Tools

LOGIT_BIASES: Final = 1024

AudioFormat = Literal["wav", "pcm16", "flac", "mp3", "opus", "aac"]
InputAudioFormat = Literal["wav", "mp3", "flac", "ogg"]


def _whole(value: object) -> object:
    """In JSON 8.0 is as whole as 8, and some clients write it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _few_biases(value: object) -> object:
    """Checked before its entries are: each that is wrong would be a fault of its own."""
    if isinstance(value, dict) and len(value) > LOGIT_BIASES:
        raise PydanticCustomError("too_many", f"Expected at most {LOGIT_BIASES} entries; got {len(value)}")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
TopK = Annotated[int, Field(ge=-1, le=1_000_000), BeforeValidator(_whole)]
# Smaller ones would throw logits beyond any number.
Repetition = Annotated[float, Field(ge=0.01, le=10)]
Int64 = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63), BeforeValidator(_whole)]


class TextPart(RequestPart):
    type: Literal["text"]
    text: str


class RefusalPart(RequestPart):
    type: Literal["refusal"]
    refusal: str


class ImageUrl(RequestPart):
    url: str = Field(description="A data: URL, or https where this server allows the host.")
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(RequestPart):
    type: Literal["image_url"]
    image_url: ImageUrl


class InputAudio(RequestPart):
    data: str = Field(description="Base64, or a data: URL.")
    format: InputAudioFormat | None = None


class InputAudioPart(RequestPart):
    type: Literal["input_audio"]
    input_audio: InputAudio


class MediaUrl(RequestPart):
    url: str = Field(description="A data: URL, or https where this server allows the host.")


class AudioUrlPart(RequestPart):
    type: Literal["audio_url"]
    audio_url: MediaUrl


class VideoUrlPart(RequestPart):
    type: Literal["video_url"]
    video_url: MediaUrl


UserPart = Annotated[TextPart | ImagePart | InputAudioPart | AudioUrlPart | VideoUrlPart, Field(discriminator="type")]
AssistantPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


def _kind(value: object) -> str | None:
    """Leaves each value to one member of a union, so that a fault is told once."""
    match value:
        case str():
            return "text"
        case list():
            return "many"
        case dict() | BaseModel():
            return "one"
    return None


Text = Annotated[str, Tag("text")]
Content = Discriminator(
    _kind,
    custom_error_type="content_type",
    custom_error_message="Input should be a string or an array of content parts",
)
SystemContent = Annotated[Text | Annotated[list[TextPart], FIRST_FAULT, Tag("many")], Content]
UserContent = Annotated[Text | Annotated[list[UserPart], FIRST_FAULT, Tag("many")], Content]
AssistantContent = Annotated[Text | Annotated[list[AssistantPart], FIRST_FAULT, Tag("many")], Content]


class SystemMessage(RequestPart):
    role: Literal["system", "developer"]
    content: SystemContent


class UserMessage(RequestPart):
    role: Literal["user"]
    content: UserContent


class SpokenBefore(RequestPart):
    id: str = Field(description="`audio.id` of an earlier answer; its transcript takes the place of the content.")


class AssistantMessage(RequestPart):
    role: Literal["assistant"]
    content: AssistantContent | None = None
    refusal: str | None = None
    audio: SpokenBefore | None = None
    tool_calls: Annotated[list[EarlierCall], FIRST_FAULT] | None = None
    function_call: JsonValue = None


class ToolMessage(RequestPart):
    """What a call of an earlier answer gave."""

    role: Literal["tool"]
    tool_call_id: str
    content: SystemContent


class FunctionMessage(RequestPart):
    """Of the interface before tools: refused with a sentence."""

    role: Literal["function"]


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage, Field(discriminator="role")
]


class VoiceId(RequestPart):
    id: str


Voice = Annotated[
    Text | Annotated[VoiceId, Tag("one")],
    Discriminator(
        _kind, custom_error_type="voice_type", custom_error_message="Input should be a string or an object with an id"
    ),
]


class AudioOutput(RequestPart):
    voice: Voice | None = Field(default=None, description="ethan, chelsie, aiden, or one of OpenAI's names.")
    format: AudioFormat | None = Field(default=None, description="wav unless streamed; a stream is always pcm16.")


class StreamOptions(RequestPart):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    include_timings: bool | None = Field(default=None, description="Extension: where the time went, in the last chunk.")


class MediaOptions(RequestPart):
    use_audio_in_video: bool | None = None
    fps: float | None = Field(default=None, ge=0.01, le=30, description="Frames a second of video; 2 when unset.")


class TemplateOptions(RequestPart):
    enable_thinking: bool | None = None


Stop = Annotated[
    Text | Annotated[list[str], FIRST_FAULT, Tag("many")],
    Discriminator(
        _kind, custom_error_type="stop_type", custom_error_message="Input should be a string or an array of strings"
    ),
]
Modalities = Annotated[list[Literal["text", "audio"]], Field(fail_fast=True, min_length=1)]
LogitBias = Annotated[
    dict[str, Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=LOGIT_BIASES),
    BeforeValidator(_few_biases),
]


class ChatCompletionRequest(RequestPart):
    model: str
    messages: list[Message] = Field(fail_fast=True, min_length=1)
    modalities: Modalities | None = None
    audio: AudioOutput | None = Field(default=None, description="Required when modalities ask for audio.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    max_completion_tokens: Count | None = None
    max_tokens: Count | None = Field(default=None, json_schema_extra={"deprecated": True})
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is greedy; unset: the checkpoint's.")
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: TopK | None = Field(default=None, description="Extension: -1 or 0 keeps every token.")
    repetition_penalty: Repetition | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: LogitBias | None = None
    seed: Int64 | None = None
    stop: Stop | None = None
    n: Whole | None = Field(default=None, description="1 is the only value served.")

    talker_temperature: float | None = Field(default=None, ge=0, le=2, description="Extension: of the speech.")
    talker_top_k: TopK | None = None
    talker_top_p: float | None = Field(default=None, ge=0, le=1)
    talker_repetition_penalty: Repetition | None = None
    mm_processor_kwargs: MediaOptions | None = None

    tools: Tools | None = None
    tool_choice: ToolChoice | None = Field(default=None, description="auto with tools, none without.")
    parallel_tool_calls: bool | None = Field(default=None, description="False ends the answer after one call.")
    response_format: ResponseFormat | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: TemplateOptions | None = None
    reasoning_effort: str | None = Field(default=None, description="none switches a thinking model's thoughts off.")

    # Known, and refused unless they ask for nothing.
    functions: list[JsonValue] | None = None
    function_call: JsonValue = None
    logprobs: bool | None = None
    top_logprobs: Whole | None = None
    min_p: float | None = None
