"""What the Thinker is trained on, and what counts in its loss."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from recipes.nano.domain.conversations import Class
from recipes.nano.thinker.augmentation import Augmentation
from recipes.nano.training.settings import TrainingSettings

Weight = Annotated[float, Field(ge=0.0, le=100.0)]


class LossWeights(BaseModel):
    """Beside the answers' cross-entropy, which weighs 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # What is said, read off the audio encoder directly: without it speech is understood ten times later.
    transcript: Weight = 0.5
    router_balance: Weight = 0.01


class ThinkerSettings(BaseModel):
    """`batch` says how many conversations of each class a step has; longer ones and longer sounds are left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainingSettings
    batch: dict[Class, Annotated[int, Field(ge=1, le=4096)]] = Field(min_length=1)
    most_tokens: int = Field(default=144, ge=32, le=4096)
    # The audio encoder's attention reaches over eight seconds.
    longest_sound_seconds: int = Field(default=5, ge=1, le=8)
    most_transcript_tokens: int = Field(default=24, ge=1, le=100)
    # Films are shown at two frames a second; told that it is one, the Thinker must not lean on the pace.
    slow_film_share: float = Field(default=0.4, ge=0.0, le=1.0)
    loss: LossWeights = LossWeights()
    augmentation: Augmentation = Augmentation()
    # True: go on from the shipped checkpoint's Thinker instead of from nothing.
    from_shipped: bool = False
