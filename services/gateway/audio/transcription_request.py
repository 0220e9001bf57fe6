"""The form of POST /v1/audio/transcriptions and /translations, as published in the OpenAPI."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from antiphon.errors import InvalidInput

TranscriptFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]


class TranscriptionFields(BaseModel):
    """Fields of a form are text: "0.5" is a number and "true" is true."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, populate_by_name=True)

    model: str
    language: str | None = Field(default=None, description="Of the sound, as an ISO 639-1 code.")
    prompt: str | None = Field(default=None, max_length=4096, description="What the sound is about; a system message.")
    response_format: TranscriptFormat | None = Field(default=None, description="json when unset.")
    temperature: float | None = Field(default=None, ge=0, le=1, description="0, greedy, when unset.")
    stream: bool | None = Field(default=None, description="Server-sent events transcript.text.delta and .done.")
    timestamp_granularities: list[Literal["segment", "word"]] | None = Field(
        default=None, alias="timestamp_granularities[]", description="Words have no times here."
    )
    include: list[str] | None = Field(default=None, alias="include[]")

    def refuse_unserved(self) -> None:
        if "word" in (self.timestamp_granularities or ()):
            raise _unsupported("timestamp_granularities", "the model tells no times of words")
        if self.include:
            raise _unsupported("include", "log probabilities are not served")


LISTS = ("timestamp_granularities[]", "include[]")


class TranscriptionForm(TranscriptionFields):
    """With its file."""

    file: bytes = Field(description="A sound: wav, mp3, flac, ogg.", json_schema_extra={"format": "binary"})


def _unsupported(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"Unsupported value for '{param}': {reason}.", param=param, code="unsupported_value")
