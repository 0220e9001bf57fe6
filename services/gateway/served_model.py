"""What the gateway tells about the checkpoint it serves: its name, voices, context and sampling defaults."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from antiphon.errors import CheckpointError, NotFound
from antiphon.prompt.template import ChatTemplate
from services.gateway.config import GatewaySettings

InputModality = Literal["text", "image", "audio", "video"]
OutputModality = Literal["text", "audio"]
# Instruct speaks; Thinking writes, its thoughts first; Captioner describes one sound and reads nothing.
CheckpointKind = Literal["instruct", "thinking", "captioner"]
INPUT_MODALITIES: Final[tuple[InputModality, ...]] = ("text", "image", "audio", "video")

# Stock clients name OpenAI's voices; each gets the nearest of Qwen3-Omni's three, or the default where it is missing.
OPENAI_VOICES: Final = {
    "alloy": "ethan",
    "ash": "aiden",
    "ballad": "aiden",
    "cedar": "aiden",
    "coral": "chelsie",
    "echo": "ethan",
    "fable": "aiden",
    "marin": "chelsie",
    "nova": "chelsie",
    "onyx": "ethan",
    "sage": "chelsie",
    "shimmer": "chelsie",
    "verse": "ethan",
}

# The checkpoint that ships with the project is called after it.
_OWN_NAMES: Final = {"nano": "antiphon-nano"}


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """temperature 0 is greedy, top_k 0 keeps every token, 1 turns the others off."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0


# What transformers' `generate` gives the Talker when nothing else is said.
TALKER_DEFAULTS: Final = SamplingDefaults(temperature=0.9, top_k=50, top_p=1.0, repetition_penalty=1.05)


@dataclass(frozen=True, slots=True)
class ServedModel:
    model_id: str
    aliases: tuple[str, ...]
    created: int
    context_tokens: int
    # Rows that the Talker's prompt and frames may take together; 0 without a Talker.
    talker_context_rows: int
    vocabulary: int
    # Lower case; empty for a checkpoint that cannot speak.
    voices: tuple[str, ...]
    default_voice: str
    sampling: SamplingDefaults
    talker_sampling: SamplingDefaults
    kind: CheckpointKind
    # Of its chat template.
    takes_tools: bool
    switches_thinking: bool

    @property
    def input_modalities(self) -> tuple[InputModality, ...]:
        return ("audio",) if self.kind == "captioner" else INPUT_MODALITIES

    @property
    def output_modalities(self) -> tuple[OutputModality, ...]:
        return ("text", "audio") if self.voices else ("text",)

    def check_name(self, name: str) -> None:
        if name != self.model_id and name not in self.aliases:
            raise NotFound(
                f"The model '{name[:64]}' does not exist. This server has '{self.model_id}'.",
                param="model",
                code="model_not_found",
            )

    def voice(self, name: str) -> str | None:
        """The checkpoint's voice that `name` means, or None."""
        lowered = name.lower()
        if lowered in self.voices:
            return lowered
        if lowered not in OPENAI_VOICES:
            return None
        nearest = OPENAI_VOICES[lowered]
        return nearest if nearest in self.voices else self.default_voice


class _TextConfig(BaseModel):
    max_position_embeddings: int
    vocab_size: int


class _ThinkerConfig(BaseModel):
    text_config: _TextConfig


class _TalkerConfig(BaseModel):
    text_config: _TextConfig
    speaker_id: dict[str, int] = {}


class _ConfigFile(BaseModel):
    name_or_path: str = Field("", alias="_name_or_path")
    thinker_config: _ThinkerConfig
    talker_config: _TalkerConfig | None = None
    enable_audio_output: bool = True


class _GenerationFile(BaseModel):
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    talker_do_sample: bool = True
    talker_temperature: float = TALKER_DEFAULTS.temperature
    talker_top_k: int = TALKER_DEFAULTS.top_k
    talker_top_p: float = TALKER_DEFAULTS.top_p
    talker_repetition_penalty: float = TALKER_DEFAULTS.repetition_penalty


def read_served_model(settings: GatewaySettings) -> ServedModel:
    config_path = settings.checkpoint / "config.json"
    config = _read(config_path, _ConfigFile)
    generation_path = settings.checkpoint / "generation_config.json"
    generation = _read(generation_path, _GenerationFile) if generation_path.exists() else _GenerationFile()
    voices = _voices(config)
    template = ChatTemplate.from_checkpoint(settings.checkpoint)
    model_id, aliases = _names(settings)
    return ServedModel(
        model_id=model_id,
        aliases=aliases,
        created=int(config_path.stat().st_mtime),
        context_tokens=config.thinker_config.text_config.max_position_embeddings,
        talker_context_rows=config.talker_config.text_config.max_position_embeddings if config.talker_config else 0,
        vocabulary=config.thinker_config.text_config.vocab_size,
        voices=voices,
        default_voice=_default_voice(voices, settings.default_voice.lower()),
        sampling=_thinker_defaults(generation),
        talker_sampling=_talker_defaults(generation),
        kind=settings.checkpoint_kind or _kind(config, settings),
        takes_tools=template.takes_tools,
        switches_thinking=template.switches_thinking,
    )


def _kind(config: _ConfigFile, settings: GatewaySettings) -> CheckpointKind:
    """Thinking and Captioner lack a Talker; their files are alike, so the name tells them apart."""
    if _voices(config):
        return "instruct"
    name = f"{config.name_or_path} {settings.model_id or ''} {settings.checkpoint.resolve().name}".lower()
    if "captioner" in name:
        return "captioner"
    return "instruct" if "instruct" in name else "thinking"


def _names(settings: GatewaySettings) -> tuple[str, tuple[str, ...]]:
    directory = settings.checkpoint.resolve().name
    model_id = settings.model_id or _OWN_NAMES.get(directory, directory)
    others = (directory, *settings.model_aliases)
    return model_id, tuple(dict.fromkeys(name for name in others if name != model_id))


def _voices(config: _ConfigFile) -> tuple[str, ...]:
    if config.talker_config is None or not config.enable_audio_output:
        return ()
    return tuple(sorted(name.lower() for name in config.talker_config.speaker_id))


def _default_voice(voices: tuple[str, ...], wanted: str) -> str:
    return wanted if wanted in voices or not voices else voices[0]


def _thinker_defaults(generation: _GenerationFile) -> SamplingDefaults:
    """Greedy unless the checkpoint asks for sampling, as transformers does."""
    return SamplingDefaults(
        temperature=(generation.temperature or 1.0) if generation.do_sample else 0.0,
        top_k=generation.top_k or 0,
        top_p=generation.top_p or 1.0,
        repetition_penalty=generation.repetition_penalty or 1.0,
    )


def _talker_defaults(generation: _GenerationFile) -> SamplingDefaults:
    return SamplingDefaults(
        temperature=generation.talker_temperature if generation.talker_do_sample else 0.0,
        top_k=generation.talker_top_k,
        top_p=generation.talker_top_p,
        repetition_penalty=generation.talker_repetition_penalty,
    )


_File = TypeVar("_File", bound=BaseModel)


def _read(path: Path, kind: type[_File]) -> _File:
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"Expected {path} of a Qwen3-Omni checkpoint; it cannot be read: {error}") from error
    except ValidationError as error:
        raise CheckpointError(f"Expected {path} to be that of a Qwen3-Omni checkpoint: {error}") from error
