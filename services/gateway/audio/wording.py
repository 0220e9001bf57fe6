"""In which words a checkpoint is asked to write down, to translate or to read aloud: those it was trained on."""

from dataclasses import dataclass
from typing import Final

from antiphon.errors import InvalidInput
from services.gateway.config import GatewaySettings

# What Qwen3-Omni hears, by ISO 639-1 code.
LANGUAGES: Final = {
    "ar": "Arabic",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "ms": "Malay",
    "nl": "Dutch",
    "pt": "Portuguese",
    "ru": "Russian",
    "th": "Thai",
    "tr": "Turkish",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "yue": "Cantonese",
    "zh": "Chinese",
}


@dataclass(frozen=True, slots=True)
class Wording:
    """{language} and {text} stand for what was asked; a task without words is not served."""

    transcribe: str
    transcribe_language: str
    translate: str | None
    # What a user would have said to get the text as an answer.
    read_aloud: str


# As Qwen3-Omni's model card asks for speech recognition and translation.
_QWEN: Final = Wording(
    transcribe="Transcribe the audio into text.",
    transcribe_language="Transcribe the {language} audio into text.",
    translate="Listen to the provided speech and produce a translation in English text.",
    read_aloud="Repeat after me: {text}",
)
_NANO: Final = Wording(
    transcribe="Transcribe the audio.",
    transcribe_language="Transcribe the audio.",
    translate=None,
    read_aloud="say {text}",
)


def wording_of(settings: GatewaySettings) -> Wording:
    known = _NANO if settings.checkpoint.resolve().name == "nano" else _QWEN
    return Wording(
        transcribe=settings.transcription_instruction or known.transcribe,
        transcribe_language=settings.transcription_instruction or known.transcribe_language,
        translate=settings.translation_instruction or known.translate,
        read_aloud=settings.speech_instruction or known.read_aloud,
    )


def language_name(language: str) -> str:
    """Of an ISO code, such as "en" or "en-GB", or of a name."""
    code = language.lower().partition("-")[0]
    names = {name.lower(): name for name in LANGUAGES.values()}
    name = LANGUAGES.get(code) or names.get(language.lower())
    if name is None:
        raise InvalidInput(
            f"Unknown language '{language[:32]}'. Expected one of {', '.join(sorted(LANGUAGES))}.", param="language"
        )
    return name
