"""Some experts of one layer in plain torch, for packed (row, expert) pairs; on a CPU bit-equal to LocalExperts, which
has them all.

So that rounding stays the same, pairs are multiplied as LocalExperts would: one by one when the whole step has few of
them, otherwise all rows of an expert at once, in their order. Measured in float32 and bfloat16: how many other experts
there are changes nothing, and neither does a gate apart from its up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, mm

from antiphon.model.kernels.plain import gated
from antiphon.model.kernels.plain_experts import FEW_PAIRS


@dataclass(frozen=True, slots=True)
class ExpertWeights:
    """As they are multiplied from the right; views of what is stored row by row."""

    # The gate's columns, then those of up: (width, 2 * expert width), or each alone (width, expert width).
    gate_up: tuple[Tensor, ...]
    # (expert width, width)
    down: Tensor


@dataclass(frozen=True, slots=True)
class PackedPairs:
    # (rows, width), where rows may have any number of pairs.
    hidden: Tensor
    # int32 or int64 (pairs): which of the rows.
    rows: Tensor
    # Of each pair.
    experts: Sequence[int]
    # (pairs), in the type of the hidden rows.
    weights: Tensor
    # Of the whole step, pairs that are computed elsewhere included.
    step_pairs: int


def weighted_pairs(experts: Mapping[int, ExpertWeights], pairs: PackedPairs, into: Tensor) -> Tensor:
    """Writes each pair's weighted row into `into` (pairs, width), which may be anywhere. Raises KeyError without the
    expert of a pair."""
    # On other devices LocalExperts groups always.
    if pairs.hidden.is_cpu and pairs.step_pairs <= FEW_PAIRS:
        rows = pairs.hidden.index_select(0, pairs.rows)
        outer = _through([experts[expert] for expert in pairs.experts], [1] * len(pairs.experts), rows)
        return into.copy_(outer.mul_(pairs.weights.unsqueeze(-1)))
    order = sorted(range(len(pairs.experts)), key=pairs.experts.__getitem__)
    places = pairs.rows.new_tensor(order)
    counts = _counts([pairs.experts[pair] for pair in order])
    rows = pairs.hidden.index_select(0, pairs.rows.index_select(0, places))
    outer = _through([experts[expert] for expert in counts], list(counts.values()), rows)
    outer.mul_(pairs.weights.index_select(0, places).unsqueeze(-1))
    return into.index_copy_(0, places.long(), outer)


def summed_pairs(experts: Mapping[int, ExpertWeights], pairs: PackedPairs, into: Tensor) -> Tensor:
    """Writes float32 (rows, width): each row's weighted pairs, rounded one by one and then summed in their order."""
    weighted = pairs.hidden.new_empty(len(pairs.experts), pairs.hidden.shape[1])
    weighted_pairs(experts, pairs, weighted)
    return into.zero_().index_add_(0, pairs.rows, weighted.to(into.dtype))


def _counts(ordered: Sequence[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for expert in ordered:
        counts[expert] = counts.get(expert, 0) + 1
    return counts


def _through(experts: Sequence[ExpertWeights], counts: list[int], rows: Tensor) -> Tensor:
    """Each expert takes the next `count` of the rows; (rows, width) -> (rows, width)."""
    if not experts:
        return rows
    expert_width, width = experts[0].down.shape
    both = rows.new_empty(len(rows), 2 * expert_width)
    parts = [part.split_with_sizes(counts) for part in both.chunk(len(experts[0].gate_up), -1)]
    for place, (expert, given) in enumerate(zip(experts, rows.split_with_sizes(counts), strict=True)):
        for part, matrix in zip(parts, expert.gate_up, strict=True):
            mm(given, matrix, out=part[place])
    inner, outer = gated(both), rows.new_empty(len(rows), width)
    places = zip(experts, inner.split_with_sizes(counts), outer.split_with_sizes(counts), strict=True)
    for expert, given, taken in places:
        mm(given, expert.down, out=taken)
    return outer
