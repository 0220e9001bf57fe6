"""What every part of a request's body is."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

# Of items that are wrong one is enough to tell; of millions, all would fill the memory.
FIRST_FAULT: Final = Field(fail_fast=True)


class RequestPart(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)
