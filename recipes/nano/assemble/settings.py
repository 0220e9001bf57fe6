"""How a checkpoint is written, and how it asks to be sampled."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

DTYPES: dict[str, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


class AssembleSettings(BaseModel):
    """Sampling is of the first code of a frame. The architecture's usual temperature of 0.9 and penalty of 1.05 are
    made for a codebook eight times as large: speech needs to repeat some of 256 codes often."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    talker_temperature: float = Field(default=0.3, ge=0, le=2)
    talker_top_k: int = Field(default=50, ge=0)
    talker_top_p: float = Field(default=1.0, gt=0, le=1)
    talker_repetition_penalty: float = Field(default=1.0, gt=0, le=2)
