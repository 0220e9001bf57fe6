"""How long and how fast a stage trains."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainingSettings(BaseModel):
    """Ends after `minutes` of training or `steps`, whichever comes first; at least one of them must be given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minutes: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(gt=0, le=1)
    warm_up_steps: int = Field(default=200, ge=1)
    last_rate_share: float = Field(default=0.02, ge=0, le=1)
    weight_decay: float = Field(default=0.02, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    most_gradient_norm: float = Field(default=1.0, gt=0)
    report_every_steps: int = Field(default=50, ge=1)
    save_every_minutes: float = Field(default=3.0, gt=0)
    validations: int = Field(default=5, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.minutes is None and self.steps is None:
            raise ValueError("A stage needs an end: give `minutes`, `steps` or both.")
        return self
