"""What the Talker is trained on, and how far its training is from speaking freely."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from recipes.nano.domain.sentences import AnswerKind
from recipes.nano.training.settings import TrainingSettings

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class HistorySettings(BaseModel):
    """How the codes that the Talker reads differ from the true ones while it is trained.

    Reading only true codes it learns to copy them, and babbles as soon as it must read its own (exposure bias). So it
    reads its own draws (scheduled sampling, arXiv 1506.03099), residual codes that belong to other frames, and noise.
    Of every utterance another share is changed, from none to what is given here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    most_own_first_codes: Share = 0.6
    own_temperature: float = Field(default=0.8, gt=0.0, le=2.0)
    most_strange_residuals: Share = 1.0
    most_noisy_residuals: Share = 0.5
    most_random_frames: Share = 0.3


class AnswerShares(BaseModel):
    """How often answers of each kind are drawn, in proportion. The few everyday ones would else drown among the many
    that are composed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    everyday: Share = 0.4
    composed: Share = 0.3
    phrase: Share = 0.3

    def of(self, kind: AnswerKind) -> float:
        return {"everyday": self.everyday, "composed": self.composed, "phrase": self.phrase}[kind]


class TalkerSettings(BaseModel):
    """`frame_limits` are the lengths to which batches are padded; longer speech is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainingSettings
    history: HistorySettings = HistorySettings()
    frame_limits: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(default=(26, 40, 60, 88), min_length=1)
    frames_per_batch: int = Field(default=3328, ge=16, le=1_000_000)
    most_text_tokens: int = Field(default=36, ge=4, le=1000)
    shares: AnswerShares = AnswerShares()
    # So many of the frames the code predictor learns, too: it costs as much as the Talker.
    residual_frame_share: float = Field(default=0.25, gt=0.0, le=1.0)
    user_prompts: int = Field(default=600, ge=8, le=100_000)
    # So many of the batches have the longer half of the prompts, which cost twice as much.
    long_prompt_share: Share = 0.25
    held_out_utterances: int = Field(default=192, ge=2, le=10_000)
    # True: go on from the shipped checkpoint's Talker instead of from nothing.
    from_shipped: bool = False
