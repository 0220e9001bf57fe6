"""What every object of the protocol is read as: strictly, and without heed of fields that nobody here knows."""

from pydantic import BaseModel, ConfigDict, model_validator


class Part(BaseModel):
    """Unknown fields are ignored: every release of an SDK adds some."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


class Nullable(Part):
    """Null is what an absent field is."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        return {key: given for key, given in value.items() if given is not None} if isinstance(value, dict) else value
