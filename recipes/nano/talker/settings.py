"""What the Talker is trained on, and how far its training is from speaking freely."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from recipes.nano.domain.sentences import AnswerKind
from recipes.nano.training.settings import TrainingSettings

Share = float


class HistorySettings(BaseModel):
    """How the codes that the Talker reads differ from the true ones while it is trained.

    Reading only true codes it learns to copy them and babbles as soon as it must read its own (exposure bias). So it reads
    its own draws (scheduled sampling, arXiv 1506.03099), residual codes that belong to other frames, and noise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    most_own_first_codes: Share = Field(default=0.6, ge=0, le=1)
    own_temperature: float = Field(default=0.8, gt=0, le=2)
    most_strange_residuals: Share = Field(default=1.0, ge=0, le=1)
    most_noisy_residuals: Share = Field(default=0.5, ge=0, le=1)
    most_random_frames: Share = Field(default=0.3, ge=0, le=1)


class TalkerSettings(BaseModel):
    """`frame_limits` are the lengths to which batches are padded; longer speech is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainingSettings
    history: HistorySettings = HistorySettings()
    frame_limits: tuple[int, ...] = (26, 40, 60, 88)
    frames_per_batch: int = Field(default=3328, ge=16)
    most_text_tokens: int = Field(default=36, ge=4)
    # How often answers of each kind are drawn. The few of everyday would else drown among the many that are composed.
    shares: Mapping[AnswerKind, Share] = {"everyday": 0.4, "composed": 0.3, "phrase": 0.3}
    # One frame in this many is also learnt by the code predictor, which costs as much as the Talker.
    residual_frame_share: Share = Field(default=0.25, gt=0, le=1)
    user_prompts: int = Field(default=600, ge=8)
    # Of the batches, this many have the longer half of the prompts, which cost twice as much.
    long_prompt_share: Share = Field(default=0.25, ge=0, le=1)
    held_out_utterances: int = Field(default=192, ge=2)
    # True: go on from the shipped checkpoint's Talker instead of from nothing.
    from_shipped: bool = False
