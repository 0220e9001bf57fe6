"""How long and how fast a stage trains."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class TrainingSettings(BaseModel):
    """Ends after `minutes` of training or `steps`, whichever comes first; at least one of them must be given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minutes: float | None = Field(default=None, gt=0.0)
    steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(gt=0.0, le=1.0)
    warm_up_steps: int = Field(default=200, ge=1)
    # The rate falls to this share of its peak.
    last_rate_share: float = Field(default=0.02, ge=0.0, le=1.0)
    weight_decay: float = Field(default=0.02, ge=0.0, le=1.0)
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    most_gradient_norm: float = Field(default=1.0, gt=0.0)
    report_every_steps: int = Field(default=50, ge=1)
    save_every_minutes: float = Field(default=3.0, gt=0.0)
    # The last one is at the end.
    validations: int = Field(default=5, ge=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.minutes is None and self.steps is None:
            raise ValueError("A stage needs an end: give `minutes`, `steps` or both.")
        return self
