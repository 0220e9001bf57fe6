"""How the codec is trained, and what counts in its loss."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from recipes.nano.training.settings import TrainingSettings

Weight = Annotated[float, Field(ge=0.0, le=100.0)]


class LossWeights(BaseModel):
    """`phones`: how much the first codes must tell which phones are spoken, so that the Talker finds them easier to
    foretell (as Mimi's first codes are semantic, arXiv 2410.00037, section 3.3.3); 0 leaves the first codes to the ear.
    Of the shipped voice's, a linear reader gets 69 % of the phones wrong. After 120 small steps behind a
    reader that could read already it was 65 % at weight 0.5 and 59 % at weight 2; the log-mel distance rose by 0.003
    and 0.02. What it does to a Talker is not measured.
    `deception` and `features` count only while there is a discriminator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mel: Weight = 15.0
    spectrum: Weight = 5.0
    commitment: Weight = 0.5
    phones: Weight = 0.0
    deception: Weight = 1.0
    features: Weight = 4.0


class CodecSettings(BaseModel):
    """`adversarial`: a second phase, against a discriminator; None is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainingSettings
    adversarial: TrainingSettings | None = None
    loss: LossWeights = LossWeights()
    pieces_per_batch: int = Field(default=48, ge=1, le=1024)
    frames_per_piece: int = Field(default=24, ge=8, le=250)
    # Whole utterances, whose phones are read off the first codes.
    readings_per_batch: int = Field(default=16, ge=1, le=1024)
    longest_reading_seconds: float = Field(default=3.2, gt=0.5, le=10.0)
    held_out_utterances: int = Field(default=32, ge=1, le=1000)
    # True: go on from the shipped voice instead of from nothing.
    from_shipped: bool = False
    # True: train Code2Wav alone; codes keep their meaning, and what was encoded remains true.
    only_code2wav: bool = False
