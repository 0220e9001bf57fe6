"""The body of POST /v1/audio/speech, as published in the OpenAPI, and what it becomes."""

from typing import Final, Literal

from pydantic import Field

from antiphon.errors import InvalidInput
from services.gateway.openai.part import RequestPart
from services.gateway.openai.request import Int64, Repetition, TopK, Voice

SpeechFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
CHARACTERS: Final = 4096


class SpeechBody(RequestPart):
    model: str
    input: str = Field(min_length=1, max_length=CHARACTERS, description="What is to be said.")
    voice: Voice | None = Field(default=None, description="ethan, chelsie, aiden, or one of OpenAI's names.")
    response_format: SpeechFormat | None = Field(default=None, description="mp3 when unset; aac is not served.")
    stream_format: Literal["audio", "sse"] | None = Field(default=None, description="audio when unset.")
    speed: float | None = Field(default=None, ge=0.25, le=4, description="1 is the only value served.")
    instructions: str | None = Field(default=None, description="Refused: the Talker reads none.")

    talker_temperature: float | None = Field(default=None, ge=0, le=2, description="Extension: of the speech.")
    talker_top_k: TopK | None = None
    talker_top_p: float | None = Field(default=None, ge=0, le=1)
    talker_repetition_penalty: Repetition | None = None
    seed: Int64 | None = None

    def refuse_unserved(self) -> None:
        if self.response_format == "aac":
            raise _unsupported("response_format", "'aac' is not served; mp3, opus, flac, wav and pcm are")
        if self.speed not in (None, 1.0):
            raise _unsupported("speed", "speech at its own speed, 1.0, is the only one served")
        if self.instructions:
            raise _unsupported("instructions", "the voice takes none; leave it out")
        if not self.input.strip():
            raise InvalidInput("Invalid value for 'input': expected something to say; got blanks.", param="input")


def _unsupported(param: str, reason: str) -> InvalidInput:
    return InvalidInput(f"Unsupported value for '{param}': {reason}.", param=param, code="unsupported_value")
