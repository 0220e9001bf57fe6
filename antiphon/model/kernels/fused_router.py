"""One kernel from router logits to the chosen experts and their weights.

Experts of equal score are chosen by ascending id, which torch leaves open. Where no scores are equal the ids are those
of the twin; weights differ by 1e-6, and in bfloat16 by at most one rounding.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from antiphon.model.kernels.launching import launch, power_of_two


def choose_experts(logits: Tensor, count: int, normalises: bool) -> tuple[Tensor, Tensor]:
    rows, experts = logits.shape
    weights = torch.empty((rows, count), dtype=logits.dtype, device=logits.device)
    expert_ids = torch.empty((rows, count), dtype=torch.int64, device=logits.device)
    launch(
        _choose,
        (rows,),
        *(logits.contiguous(), weights, expert_ids),
        experts=experts,
        count=count,
        normalises=normalises,
        block=power_of_two(experts),
        slots=power_of_two(count),
        warps=1,
    )
    return weights, expert_ids


@triton.jit
def _choose(
    logits: tl.tensor,
    weights: tl.tensor,
    expert_ids: tl.tensor,
    experts: tl.constexpr,
    count: tl.constexpr,
    normalises: tl.constexpr,
    block: tl.constexpr,
    slots: tl.constexpr,
) -> None:
    row, expert, slot = tl.program_id(0).to(tl.int64), tl.arange(0, block), tl.arange(0, slots)
    inside = expert < experts
    logit = tl.load(logits + row * experts + expert, mask=inside, other=float("-inf")).to(tl.float32)
    scores = tl.exp(logit - tl.max(logit, 0))
    total = tl.sum(tl.where(inside, scores, 0.0), 0)
    scores = tl.where(inside, scores / total, -1.0)
    chosen, chosen_ids = tl.zeros([slots], tl.float32), tl.zeros([slots], tl.int64)
    for place in tl.static_range(count):
        best = tl.max(scores, 0)
        # The bound is for scores that are no numbers: they choose what exists, and its weight is no number either.
        best_id = tl.minimum(tl.min(tl.where(scores == best, expert, block), 0), experts - 1)
        chosen = tl.where(slot == place, best, chosen)
        chosen_ids = tl.where(slot == place, best_id.to(tl.int64), chosen_ids)
        scores = tl.where(expert == best_id, -1.0, scores)
    if normalises:
        chosen = chosen / tl.sum(chosen, 0)
    chosen = tl.where(total == total, chosen, total)  # what is no number differs from itself
    at = row * count + slot
    tl.store(weights + at, chosen.to(weights.dtype.element_ty), mask=slot < count)
    tl.store(expert_ids + at, chosen_ids, mask=slot < count)
