"""The experts of one layer that a shard holds, where they are computed; rows come from the host and go back to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor

from antiphon.experts.calls import ExpertResult
from antiphon.model.kernels.choice import PLAIN, kernels_for
from antiphon.model.kernels.packed_experts import ExpertWeights, PackedPairs, summed_pairs, weighted_pairs

_CPU: Final = torch.device("cpu")

# (pairs, width) of weighted rows, on the device of the pairs.
Weigh = Callable[[PackedPairs], Tensor]


@dataclass(frozen=True, slots=True)
class HeldLayer:
    """Never changed: what comes or goes makes another one."""

    experts: Mapping[int, ExpertWeights] = field(default_factory=dict)
    # None on a CPU, where rows are read and results written where they lie.
    weigh: Weigh | None = None
    device: torch.device = _CPU

    def answer(self, pairs: PackedPairs, result: ExpertResult, into: Tensor) -> None:
        """Writes (pairs, width) in the type of the rows, or float32 (rows, width). Raises KeyError without the expert
        of a pair."""
        if self.weigh is None:
            (weighted_pairs if result is ExpertResult.PAIRS else summed_pairs)(self.experts, pairs, into)
            return
        to_device = {name: getattr(pairs, name).to(self.device) for name in ("hidden", "rows", "weights")}
        moved = replace(pairs, **to_device)
        weighted = self.weigh(moved)
        if result is ExpertResult.SUMS:
            sums = torch.zeros(into.shape, device=self.device)
            weighted = sums.index_add_(0, moved.rows, weighted.float())
        into.copy_(weighted)


def held_layer(experts: Mapping[int, ExpertWeights], layer_experts: int, device: torch.device) -> HeldLayer:
    """Of `layer_experts` these. On a GPU they are put together for its kernels, beside the old ones for a moment."""
    if device.type == "cpu" or not experts:
        return HeldLayer(experts, device=device)
    if kernels_for(device) is PLAIN:
        return HeldLayer(experts, lambda pairs: _weighed(experts, pairs), device)
    from antiphon.model.kernels.fused_packed import FusedPacked

    packed = FusedPacked(experts, layer_experts)
    return HeldLayer(packed.experts, packed.weighted_pairs, device)


def _weighed(experts: Mapping[int, ExpertWeights], pairs: PackedPairs) -> Tensor:
    into = pairs.hidden.new_empty(len(pairs.experts), pairs.hidden.shape[1])
    return weighted_pairs(experts, pairs, into)
