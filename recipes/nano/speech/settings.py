"""How much speech the codec and the Talker learn from, and how it is synthesised."""

from pydantic import BaseModel, ConfigDict, Field


class SpeechSettings(BaseModel):
    """`answers`: utterances for the codec and the Talker, `domain_share` of them nano's own answers, others phrases.

    What users say follows from the corpus of conversations. `processes`: None is one for every core.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: int = Field(ge=1, le=1_000_000)
    domain_share: float = Field(default=0.5, ge=0, le=1)
    longest_phrase: int = Field(default=8, ge=1, le=20)
    utterances_per_shard: int = Field(default=500, ge=1, le=10_000)
    processes: int | None = Field(default=None, ge=1, le=1024)
