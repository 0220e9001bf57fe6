"""The small layers every decoder is made of: RMSNorm, the gated feed-forward and the two-layer projection."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.model.kernels.choice import PLAIN, Kernels


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float, kernels: Kernels = PLAIN) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._eps, self._kernels = eps, kernels

    def forward(self, rows: Tensor) -> Tensor:
        return self._kernels.normalise(rows, self.weight, self._eps)

    def after_adding(self, rows: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of both, and the same normalised."""
        return self._kernels.add_normalise(rows, added, self.weight, self._eps)


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)); gate and up are one matrix, the gate's rows first."""

    def __init__(self, width: int, hidden_width: int, kernels: Kernels = PLAIN) -> None:
        super().__init__()
        self._kernels = kernels
        self.gate_up_proj = nn.Linear(width, 2 * hidden_width, bias=False)
        self.down_proj = nn.Linear(hidden_width, width, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        return F.linear(self._kernels.gated(F.linear(rows, self.gate_up_proj.weight)), self.down_proj.weight)


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
