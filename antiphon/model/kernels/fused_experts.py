"""All experts of one layer in two kernels for few rows and four for many, without a word from the device to the host.

Both multiply in the weights' type with float32 sums and round where their twin in plain torch does: after gate and up,
after the gate's SiLU, after their product, after down, and after the weighting. So they differ from it in the order of
the sums alone: 1e-5 of the largest output in float32, 2**-7 of it in bfloat16.
"""

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from antiphon.model.kernels.few_experts import down_of_pairs, gate_up_of_pairs
from antiphon.model.kernels.launching import launch, power_of_two, widens
from antiphon.model.kernels.many_experts import down_of_experts, gate_up_of_experts, sort_pairs

# Pairs for each expert up to which every (row, expert) pair reads its expert's weights itself. At one half, 64 pairs of
# 128 experts, about 52 experts are read 64 times; beyond it, reading each once is worth the sorting.
_FEW_PAIRS_PER_EXPERT = 0.5
_SORTED_AT_ONCE = 1024
# Pairs for each expert that between them need every kernel, after which nobody waits for a compiler.
WARM_UP_PAIRS_PER_EXPERT = (0, 1, 16, 64)


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Of the grouped products; each program computes rows x columns over steps of `depth`."""

    rows: int
    columns: int
    depth: int
    warps: int


class FusedExperts:
    """gate_up (experts, 2 * expert width, width) with the gate's rows first, down (experts, width, expert width), as
    they are stored: each output's weights lie together, which suits few rows and many. layer_experts: how many there
    are in the layer, of which these may be some."""

    def __init__(self, gate_up: Tensor, down: Tensor, layer_experts: int | None = None) -> None:
        self._gate_up, self._down = gate_up.contiguous(), down.contiguous()
        self._experts, self._width, self._expert_width = down.shape
        self._layer_experts = layer_experts or self._experts

    def __call__(self, hidden: Tensor, expert_ids: Tensor, weights: Tensor, *, step_pairs: int | None = None) -> Tensor:
        """step_pairs: (row, expert) pairs of the whole layer, of which these may be some. Kernels and tiles follow from
        it, so that a pair's rounding does not depend on how many of the others are here."""
        hidden, expert_ids, weights = hidden.contiguous(), expert_ids.contiguous(), weights.contiguous()
        pairs = step_pairs or expert_ids.numel()
        if pairs <= self._layer_experts * _FEW_PAIRS_PER_EXPERT:
            return self._pair_by_pair(hidden, expert_ids, weights)
        return self._expert_by_expert(hidden, expert_ids, weights, _tiles(pairs // self._layer_experts))

    def _pair_by_pair(self, hidden: Tensor, expert_ids: Tensor, weights: Tensor) -> Tensor:
        rows, top_k = expert_ids.shape
        inner = hidden.new_empty(rows * top_k, self._expert_width)
        columns = 8
        launch(
            gate_up_of_pairs,
            (rows * top_k, triton.cdiv(self._expert_width, columns)),
            *(hidden, self._gate_up, expert_ids, inner),
            width=self._width,
            expert_width=self._expert_width,
            top_k=top_k,
            columns=columns,
            depth=min(512, power_of_two(self._width)),
        )
        mixed = torch.empty_like(hidden)
        launch(
            down_of_pairs,
            (rows, triton.cdiv(self._width, columns)),
            *(inner, self._down, expert_ids, weights, mixed),
            width=self._width,
            expert_width=self._expert_width,
            top_k=top_k,
            columns=columns,
            depth=min(256, power_of_two(self._expert_width)),
        )
        return mixed

    def _expert_by_expert(self, hidden: Tensor, expert_ids: Tensor, weights: Tensor, tiles: _Tiles) -> Tensor:
        pairs, top_k = expert_ids.numel(), expert_ids.shape[1]
        order, starts = self._sorted(expert_ids)
        # Programs that share the rows of one expert and one block of columns, should it have many.
        shares = max(1, pairs // (self._experts * tiles.rows))
        settings = {"rows": tiles.rows, "columns": tiles.columns, "depth": tiles.depth, "warps": tiles.warps}
        settings |= {"width": self._width, "expert_width": self._expert_width, "wide": widens(hidden.dtype)}
        inner, slots = hidden.new_empty(pairs, self._expert_width), hidden.new_empty(*expert_ids.shape, self._width)
        grid = (shares, triton.cdiv(self._expert_width, tiles.columns), self._experts)
        launch(gate_up_of_experts, grid, hidden, self._gate_up, order, starts, inner, top_k=top_k, **settings)
        grid = (shares, triton.cdiv(self._width, tiles.columns), self._experts)
        launch(down_of_experts, grid, inner, self._down, order, starts, weights, slots, **settings)
        return slots.sum(1)

    def _sorted(self, expert_ids: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs by expert, int32 (pairs), and where each expert's begin, int32 (experts + 1)."""
        pairs = expert_ids.numel()
        order = torch.empty(pairs, dtype=torch.int32, device=expert_ids.device)
        starts = torch.empty(self._experts + 1, dtype=torch.int32, device=expert_ids.device)
        launch(sort_pairs, (self._experts,), expert_ids, order, starts, pairs, block=_SORTED_AT_ONCE)
        return order, starts


def _tiles(rows_per_expert: int) -> _Tiles:
    if rows_per_expert <= 8:
        return _Tiles(16, 32, 128, 4)
    if rows_per_expert <= 32:
        return _Tiles(32, 64, 64, 4)
    return _Tiles(64, 64, 64, 4)
