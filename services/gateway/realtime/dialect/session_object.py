"""The `session` object: what clients may set of it, what is merged into what, and what it means to the core.

Nothing that stock clients send by default is refused. What cannot be served is refused when it is asked for.
"""

from dataclasses import replace
from typing import Annotated, Final, Literal

from pydantic import Field, JsonValue

from antiphon.errors import InvalidInput
from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.core.configuration import SessionConfig
from services.gateway.realtime.core.items import Encoding
from services.gateway.realtime.core.response import AnswerOptions, Tool
from services.gateway.realtime.core.turn_detection import TurnDetection
from services.gateway.realtime.dialect.part import Nullable, Part
from services.gateway.realtime.dialect.truncation_choice import TruncationChoice, truncation_of
from services.gateway.served_model import ServedModel

# OpenAI says only which eagerness waits longer. Silence is the one sign that is listened for here.
_SILENCE_MS: Final = {"low": 2000, "medium": 1000, "auto": 1000, "high": 500}
_ENCODINGS: Final[dict[str, Encoding]] = {"audio/pcm": "pcm", "audio/pcmu": "pcmu", "audio/pcma": "pcma"}


class Pcm(Part):
    type: Literal["audio/pcm"]
    rate: Literal[24000] | None = 24_000


class MuLaw(Part):
    type: Literal["audio/pcmu"]


class ALaw(Part):
    type: Literal["audio/pcma"]


Format = Annotated[Pcm | MuLaw | ALaw, Field(discriminator="type")]


class ServerVad(Nullable):
    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=10_000)
    silence_duration_ms: int = Field(500, ge=0, le=60_000)
    idle_timeout_ms: int | None = Field(None, ge=5_000, le=30_000)
    create_response: bool = True
    interrupt_response: bool = True

    def detection(self) -> TurnDetection:
        return TurnDetection(
            threshold=self.threshold,
            prefix_padding_ms=self.prefix_padding_ms,
            silence_ms=self.silence_duration_ms,
            idle_ms=self.idle_timeout_ms,
            creates_response=self.create_response,
            interrupts_response=self.interrupt_response,
        )


class SemanticVad(Nullable):
    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True

    def detection(self) -> TurnDetection:
        return TurnDetection(
            silence_ms=_SILENCE_MS[self.eagerness],
            creates_response=self.create_response,
            interrupts_response=self.interrupt_response,
        )


class NoiseReduction(Part):
    """Accepted; the model hears the sound as it is."""

    type: Literal["near_field", "far_field"] | None = None


class Transcription(Part):
    """Whatever model is named: it is the served one that transcribes."""

    model: str | None = Field(None, max_length=256)
    language: str | None = Field(None, max_length=64)
    prompt: str | None = Field(None, max_length=4096)


class AudioInput(Nullable):
    format: Format | None = None
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None = None


class VoiceId(Part):
    id: str = Field(max_length=256)


class AudioOutput(Nullable):
    format: Format | None = None
    voice: str | VoiceId | None = None
    speed: float = Field(1.0, ge=0.25, le=1.5)

    @property
    def voice_name(self) -> str | None:
        return self.voice.id if isinstance(self.voice, VoiceId) else self.voice


class Audio(Nullable):
    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class FunctionTool(Part):
    type: Literal["function"]
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")
    description: str | None = Field(None, max_length=16_384)
    parameters: dict[str, JsonValue] | None = None


class NamedTool(Part):
    type: Literal["function"]
    name: str = Field(max_length=64)


Modalities = Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=2)]
ToolChoice = Literal["auto", "none", "required"] | NamedTool
MaxTokens = Annotated[int, Field(ge=1)] | Literal["inf"]


class SessionObject(Nullable):
    """The whole; of an update, what it would become."""

    type: Literal["realtime"]
    model: str = Field(max_length=256)
    output_modalities: Modalities
    instructions: str = ""
    tools: list[FunctionTool] = Field([])
    tool_choice: ToolChoice = "auto"
    max_output_tokens: MaxTokens = "inf"
    parallel_tool_calls: bool | None = None
    truncation: TruncationChoice = "auto"
    tracing: JsonValue = None
    reasoning: JsonValue = None
    prompt: None = None
    include: list[str] | None = None
    audio: Audio = Audio()


def initial(model: ServedModel) -> dict[str, JsonValue]:
    """What a session is before its client has said anything."""
    pcm: JsonValue = {"type": "audio/pcm", "rate": 24_000}
    detection = ServerVad(type="server_vad").model_dump()
    return {
        "type": "realtime",
        "model": model.model_id,
        "output_modalities": ["audio" if model.voices else "text"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "truncation": "auto",
        "tracing": None,
        "prompt": None,
        "include": None,
        "audio": {
            "input": {"format": pcm, "transcription": None, "noise_reduction": None, "turn_detection": detection},
            "output": {"format": pcm, "voice": model.default_voice, "speed": 1.0},
        },
    }


def merged(old: dict[str, JsonValue], new: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Absent is unchanged, null is null; an object of another `type` takes the old one's place."""
    result = dict(old)
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and _same_type(before, value):
            result[key] = merged(before, value)
        else:
            result[key] = value
    return result


def session_config(session: SessionObject, model: ServedModel, settings: RealtimeSettings) -> SessionConfig:
    """Raises InvalidInput where the session asks for what is not served."""
    model.check_name(session.model)
    _check_sizes(session, settings)
    output = session.audio.output
    detection, transcription = session.audio.input.turn_detection, session.audio.input.transcription
    return SessionConfig(
        answers=AnswerOptions(
            instructions=session.instructions,
            speaks=speaks(session.output_modalities, model, "session.output_modalities"),
            voice=voice_of(output.voice_name, model, "session.audio.output.voice"),
            encoding=encoding_of(output.format),
            max_answer_tokens=token_bound(session.max_output_tokens),
            tools=tools_of(session.tools),
            tool_choice=choice_of(session.tool_choice),
            calls_in_parallel=session.parallel_tool_calls is not False,
            truncation=truncation_of(session.truncation),
        ),
        input_encoding=encoding_of(session.audio.input.format),
        turn_detection=_listening(detection, settings) if detection else None,
        transcribes=transcription is not None,
    )


def _listening(detection: ServerVad | SemanticVad, settings: RealtimeSettings) -> TurnDetection:
    """Who waits longer for the end of a thought pauses within it: nothing is foreseen from such a pause."""
    return replace(
        detection.detection(),
        trailing_ms=settings.trailing_silence_ms,
        foresees=settings.speculates and detection.type == "server_vad",
    )


def speaks(modalities: list[Literal["text", "audio"]], model: ServedModel, param: str) -> bool:
    if len(modalities) > 1:
        raise InvalidInput(
            f"Invalid value for '{param}': expected ['audio'], which comes with its transcript, or ['text']; got both.",
            param=param,
        )
    if modalities == ["audio"] and not model.voices:
        raise InvalidInput(f"'{model.model_id}' writes text only. Send ['text'].", param=param)
    return modalities == ["audio"]


def voice_of(name: str | None, model: ServedModel, param: str) -> str:
    voice = model.default_voice if name is None else model.voice(name)
    if voice is None:
        known = ", ".join(f"'{known}'" for known in model.voices)
        raise InvalidInput(
            f"Unknown voice '{(name or '')[:64]}'. This model speaks as {known}; OpenAI's names, such as 'alloy', "
            "work too.",
            param=param,
        )
    return voice


def encoding_of(audio_format: Format | None) -> Encoding:
    return _ENCODINGS[audio_format.type] if audio_format else "pcm"


def token_bound(bound: MaxTokens | None) -> int | None:
    return bound if isinstance(bound, int) else None


def tools_of(tools: list[FunctionTool]) -> tuple[Tool, ...]:
    return tuple(Tool(tool.name, tool.description or "", dict(tool.parameters or {})) for tool in tools)


def choice_of(choice: ToolChoice) -> str:
    return choice.name if isinstance(choice, NamedTool) else choice


def _check_sizes(session: SessionObject, settings: RealtimeSettings) -> None:
    if len(session.instructions) > settings.instruction_characters:
        raise InvalidInput(
            f"The instructions are too long: at most {settings.instruction_characters} characters; "
            f"got {len(session.instructions)}.",
            param="session.instructions",
            code="string_above_max_length",
        )
    if len(session.tools) > settings.tools:
        raise InvalidInput(
            f"Too many tools: at most {settings.tools}; got {len(session.tools)}.",
            param="session.tools",
            code="array_above_max_length",
        )
    if session.audio.output.speed != 1.0:
        raise InvalidInput(
            f"Unsupported value for 'session.audio.output.speed': speech is given at speed 1; "
            f"got {session.audio.output.speed:g}.",
            param="session.audio.output.speed",
            code="unsupported_value",
        )
    if session.include:
        raise InvalidInput(
            "Unsupported value for 'session.include': log probabilities are not served.",
            param="session.include",
            code="unsupported_value",
        )


def _same_type(before: dict[str, JsonValue], value: dict[str, JsonValue]) -> bool:
    return value.get("type", before.get("type")) == before.get("type")
