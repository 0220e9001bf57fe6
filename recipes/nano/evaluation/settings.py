"""How much is measured."""

from pydantic import BaseModel, ConfigDict, Field


class EvaluationSettings(BaseModel):
    """Questions are the first of each class that the corpus holds out.

    `sentences`: given to the voice alone; those of the domain are spoken in every voice. `spoken_answers`: questions
    that are answered aloud, from text to sound, through Antiphon, and the first so many by plain transformers, which
    takes seconds for each. A greater `seed` samples other speech.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions_per_class: int = Field(60, ge=1)
    sentences: int = Field(120, ge=3)
    spoken_answers: int = Field(120, ge=0)
    spoken_by_transformers: int = Field(120, ge=0)
    most_tokens: int = Field(64, ge=2)
    # Of speech, 12.5 a second: who goes on for longer does not end by himself.
    most_frames: int = Field(150, ge=2)
    seed: int = Field(0, ge=0)
    # That listen; unset takes every core.
    processes: int | None = Field(None, ge=1)
