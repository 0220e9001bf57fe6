"""All experts of one layer in plain torch: one by one for a few rows on a CPU, grouped by expert otherwise."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.model.kernels.plain import gated

# On a CPU, up to this many (row, expert) pairs are cheaper one by one than sorted and grouped.
FEW_PAIRS = 8


class LocalExperts:
    """gate_up (experts, 2 * expert width, width) with the gate's rows first, down (experts, width, expert width)."""

    def __init__(self, gate_up: Tensor, down: Tensor) -> None:
        self._gate_up, self._down = gate_up, down
        self._gate_up_of, self._down_of = gate_up.unbind(), down.unbind()
        self._ids = torch.arange(len(gate_up), device=gate_up.device)

    def __call__(self, hidden: Tensor, expert_ids: Tensor, weights: Tensor) -> Tensor:
        few = hidden.device.type == "cpu" and expert_ids.numel() <= FEW_PAIRS
        slots = self._one_by_one(hidden, expert_ids) if few else self._grouped(hidden, expert_ids)
        weighted = slots.view(*expert_ids.shape, -1) * weights.unsqueeze(-1)  # (rows, k, width)
        return weighted.sum(1)

    def _one_by_one(self, hidden: Tensor, expert_ids: Tensor) -> Tensor:
        experts, rows = expert_ids.flatten().tolist(), hidden.repeat_interleave(expert_ids.shape[1], 0)
        inner = gated(_each(rows, [self._gate_up_of[expert] for expert in experts]))
        return _each(inner, [self._down_of[expert] for expert in experts])

    def _grouped(self, hidden: Tensor, expert_ids: Tensor) -> Tensor:
        """Rows sorted by expert, one multiplication per expert that has rows, and back to (rows * k, width)."""
        by_expert, order = expert_ids.flatten().sort()
        stops = torch.searchsorted(by_expert, self._ids, right=True, out_int32=True)
        inner = gated(F.grouped_mm(hidden.index_select(0, order // expert_ids.shape[1]), self._gate_up.mT, offs=stops))
        outer = F.grouped_mm(inner, self._down.mT, offs=stops)
        return torch.empty_like(outer).index_copy_(0, order, outer)


def _each(rows: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Every row through its own matrix."""
    return torch.cat([F.linear(row, matrix) for row, matrix in zip(torch.split(rows, 1), matrices, strict=True)])
