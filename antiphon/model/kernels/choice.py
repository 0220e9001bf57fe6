"""Which kernels a device computes with, chosen once when a model is loaded."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from antiphon.model.kernels import plain
from antiphon.model.kernels.arguments import CachePlace, PagedRequests
from antiphon.model.kernels.plain_experts import LocalExperts
from antiphon.model.rotary import Rotation

_log = logging.getLogger(__name__)


class Experts(Protocol):
    """The experts of one layer."""

    def __call__(self, hidden: Tensor, expert_ids: Tensor, weights: Tensor) -> Tensor:
        """hidden (rows, width), expert_ids int64 (rows, k), weights (rows, k) -> (rows, width).

        Each row is the sum, in slot order, of its k experts' outputs times their weights. An expert that cannot be
        reached is an error, never skipped.
        """
        ...


class PagedAttention(Protocol):
    def __call__(
        self, queries: Tensor, keys: Tensor, values: Tensor, requests: PagedRequests, attended: Tensor
    ) -> None:
        """queries (rows, heads, head width), keys and values of all slots of one layer (slots, kv heads, head width):
        writes the requests' rows of `attended` (rows, heads * head width) and no other."""
        ...


@dataclass(frozen=True, slots=True)
class Kernels:
    """Each is described where it is written in plain torch."""

    normalise: Callable[[Tensor, Tensor, float], Tensor]
    add_normalise: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
    gated: Callable[[Tensor], Tensor]
    add_behind_gate: Callable[[Tensor, Tensor, Tensor], Tensor]
    turn_heads: Callable[[Tensor, Tensor, float, Rotation, CachePlace | None], tuple[Tensor, Tensor, Tensor]]
    choose_experts: Callable[[Tensor, int, bool], tuple[Tensor, Tensor]]
    experts: Callable[[Tensor, Tensor], Experts]
    # How many (row, expert) pairs for each expert to begin with, because the first of such a size is slow; 0: one row.
    warm_up_pairs_per_expert: tuple[int, ...]
    # None where contexts are gathered (antiphon.model.gathered_attention).
    attention: PagedAttention | None


PLAIN = Kernels(
    normalise=plain.normalise,
    add_normalise=plain.add_normalise,
    gated=plain.gated,
    add_behind_gate=plain.add_behind_gate,
    turn_heads=plain.turn_heads,
    choose_experts=plain.choose_experts,
    experts=LocalExperts,
    warm_up_pairs_per_expert=(),
    attention=None,
)


def kernels_for(device: torch.device | str) -> Kernels:
    """The fused ones on a CUDA device that is there, unless ANTIPHON_KERNELS is "plain"; the plain ones elsewhere."""
    elsewhere = torch.device(device).type != "cuda" or not torch.cuda.is_available()
    if elsewhere or os.environ.get("ANTIPHON_KERNELS") == "plain":
        return PLAIN
    if find_spec("triton") is None:
        _log.warning("Triton is missing, so the model computes in plain torch, several times as slow. Install it.")
        return PLAIN
    from antiphon.model.kernels.fused import FUSED

    return FUSED
