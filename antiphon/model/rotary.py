"""Rotary position embedding: angles from positions on one axis or on three (time, height, width), always in float32."""

from dataclasses import dataclass

import torch
from torch import Tensor

from antiphon.errors import CheckpointError
from antiphon.model.config import DecoderConfig


@dataclass(frozen=True, slots=True)
class Rotation:
    """What turns the heads of some rows; both (rows, 1, head width), in the rows' type."""

    cos: Tensor
    # The sine with its first half negated, so that turning needs a roll and no negation.
    signed_sin: Tensor

    def turn(self, heads: Tensor) -> Tensor:
        """heads (..., rows, heads, head width), rotated by halves: x * cos + (-x2, x1) * sin."""
        rolled = heads.roll(heads.shape[-1] // 2, -1)
        return torch.addcmul(heads * self.cos, rolled, self.signed_sin)


class Rotary:
    """Frequencies of one decoder. With sections, frequency j follows height when j % 3 == 1, width when j % 3 == 2
    (each below three times its section), and time otherwise."""

    def __init__(self, config: DecoderConfig, device: torch.device | str) -> None:
        exponents = torch.arange(0, config.head_width, 2, dtype=torch.float32) / config.head_width
        self._frequencies = (1.0 / config.rope_theta**exponents).to(device)
        self._axes = _axis_of_frequency(config).to(device) if config.mrope_sections else None

    def __call__(self, positions: Tensor, dtype: torch.dtype) -> Rotation:
        """positions float32: (3, rows) with sections, (rows) without."""
        per_frequency = positions.unsqueeze(-1) if self._axes is None else positions.index_select(0, self._axes).T
        angles = per_frequency * self._frequencies  # (rows, head width / 2)
        cos, sin = angles.cos(), angles.sin()
        return Rotation(_halves(cos, cos, dtype), _halves(-sin, sin, dtype))


def _halves(first: Tensor, second: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.cat((first, second), -1).unsqueeze(1).to(dtype)


def _axis_of_frequency(config: DecoderConfig) -> Tensor:
    if len(config.mrope_sections) != 3 or sum(config.mrope_sections) != config.head_width // 2:
        raise CheckpointError(
            f"expected three mrope sections that add up to half the head width, {config.head_width // 2}; "
            f"found {list(config.mrope_sections)}. The configuration is not of a Qwen3-Omni decoder."
        )
    axes = torch.zeros(config.head_width // 2, dtype=torch.int64)
    for axis in (1, 2):
        axes[axis : config.mrope_sections[axis] * 3 : 3] = axis
    return axes
