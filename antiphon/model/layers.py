"""The small layers every decoder is made of: RMSNorm, the gated feed-forward and the two-layer projection."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Normalises in float32, casts back, then scales: the order of the reference, which bfloat16 can tell apart."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._shape, self._eps = (width,), eps

    def forward(self, rows: Tensor) -> Tensor:
        return normalise(rows, self._shape, self._eps) * self.weight


def normalise(rows: Tensor, shape: tuple[int, ...], eps: float) -> Tensor:
    """RMS normalisation without a scale, in float32, returned in the type that came."""
    return F.rms_norm(rows.float(), shape, None, eps).to(rows.dtype)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)); gate and up are one matrix, the gate's rows first."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(width, 2 * hidden_width, bias=False)
        self.down_proj = nn.Linear(hidden_width, width, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        return F.linear(gated(F.linear(rows, self.gate_up_proj.weight)), self.down_proj.weight)


def gated(gate_up: Tensor) -> Tensor:
    """silu(first half) * second half, over the last dimension."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


class Projection(nn.Module):
    """Linear, SiLU, Linear, both with bias: what brings the Thinker's rows to the Talker's width."""

    def __init__(self, in_width: int, hidden_width: int, out_width: int) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(in_width, hidden_width)
        self.linear_fc2 = nn.Linear(hidden_width, out_width)

    def forward(self, rows: Tensor) -> Tensor:
        hidden: Tensor = F.silu(self.linear_fc1(rows))
        projected: Tensor = self.linear_fc2(hidden)
        return projected
