"""Some experts of one layer for packed (row, expert) pairs on a GPU, by the kernels that compute all of a layer's."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from antiphon.model.kernels.fused_experts import FusedExperts
from antiphon.model.kernels.packed_experts import ExpertWeights, PackedPairs

_ONE_EACH: Final = 1  # expert of a row: every pair brings a row of its own


class FusedPacked:
    """Bit-equal for each pair to what FusedExperts gives it among all experts. Keeps the experts together in two
    matrices of its own, in which `experts` are views."""

    def __init__(self, experts: Mapping[int, ExpertWeights], layer_experts: int) -> None:
        """experts: at least one, gate and up as one matrix, all on one device."""
        gate_up = torch.stack([weights.gate_up[0].T for weights in experts.values()])
        down = torch.stack([weights.down.T for weights in experts.values()])
        self._places = {expert: place for place, expert in enumerate(experts)}
        self._fused = FusedExperts(gate_up, down, layer_experts)
        self.experts: Mapping[int, ExpertWeights] = {
            expert: ExpertWeights((gate_up[place].T,), down[place].T) for expert, place in self._places.items()
        }

    def weighted_pairs(self, pairs: PackedPairs) -> Tensor:
        """(pairs, width), on the device of the hidden rows. Raises KeyError without the expert of a pair."""
        places = torch.tensor([self._places[expert] for expert in pairs.experts], device=pairs.hidden.device)
        rows = pairs.hidden.index_select(0, pairs.rows)
        shape = (len(pairs.experts), _ONE_EACH)
        return self._fused(rows, places.view(shape), pairs.weights.view(shape), step_pairs=pairs.step_pairs)
