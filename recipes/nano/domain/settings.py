"""How many conversations the Thinker learns from, and how many it is measured by."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .questions import Kind


class Counts(BaseModel):
    """Conversations of every class; transcriptions are of spoken questions' recordings, at most as many."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    typed: int = Field(ge=0)
    spoken: int = Field(ge=0)
    transcription: int = Field(ge=0)
    spoken_memory: int = Field(ge=0)
    image: int = Field(ge=0)
    image_and_speech: int = Field(ge=0)
    video: int = Field(ge=0)
    sound: int = Field(ge=0)
    thinking: int = Field(ge=0)

    @model_validator(mode="after")
    def _transcriptions_have_recordings(self) -> "Counts":
        if self.transcription > self.spoken:
            raise ValueError(f"{self.transcription} transcriptions need as many spoken questions; got {self.spoken}.")
        return self


class CorpusSettings(BaseModel):
    """`kept_back`: the kinds of questions of which training leaves out the held-out ones.

    Sums belong there only to measure how badly a model of this size generalises: a third of unseen sums came out right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: Counts
    held_out: Counts
    kept_back: frozenset[Kind] = frozenset({"phrase"})
