"""Experts for many rows: the (row, expert) pairs sorted by expert, then each expert's rows times its matrix."""

import triton
import triton.language as tl

from antiphon.model.kernels.fused_rows import gate_with
from antiphon.model.kernels.launching import product


@triton.jit(do_not_specialize=["pairs"])
def sort_pairs(expert_ids: tl.tensor, order: tl.tensor, starts: tl.tensor, pairs: int, block: tl.constexpr) -> None:
    """One program an expert: order[start ...] = its pairs, ascending. No two programs write the same place, so the
    order is always the same."""
    expert = tl.program_id(0)
    before, own = 0, 0
    for first in range(0, pairs, block):
        pair = first + tl.arange(0, block)
        chosen = tl.load(expert_ids + pair, mask=pair < pairs, other=tl.num_programs(0))
        before += tl.sum((chosen < expert).to(tl.int32), 0)
        own += tl.sum((chosen == expert).to(tl.int32), 0)
    tl.store(starts + expert, before)
    if expert == tl.num_programs(0) - 1:
        tl.store(starts + expert + 1, before + own)
    for first in range(0, pairs, block):
        pair = first + tl.arange(0, block)
        chosen = tl.load(expert_ids + pair, mask=pair < pairs, other=tl.num_programs(0))
        mine = (chosen == expert).to(tl.int32)
        tl.store(order + before + tl.cumsum(mine, 0) - 1, pair, mask=mine == 1)
        before += tl.sum(mine, 0)


@triton.jit
def gate_up_of_experts(
    hidden: tl.tensor,
    gate_up: tl.tensor,
    order: tl.tensor,
    starts: tl.tensor,
    inner: tl.tensor,
    width: tl.constexpr,
    expert_width: tl.constexpr,
    top_k: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    """inner[place in the order, c] = silu(gate) * up."""
    expert = tl.program_id(2).to(tl.int64)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    start, stop = tl.load(starts + expert), tl.load(starts + expert + 1)
    kind = inner.dtype.element_ty
    matrix = gate_up + expert * 2 * expert_width * width + column[None, :] * width
    for first in range(start + tl.program_id(0) * rows, stop, tl.num_programs(0) * rows):
        place = first + tl.arange(0, rows)
        row = tl.load(order + place, mask=place < stop, other=0).to(tl.int64) // top_k
        gate, up = tl.zeros([rows, columns], tl.float32), tl.zeros([rows, columns], tl.float32)
        for begin in range(0, width, depth):
            step = begin + tl.arange(0, depth)
            inside = (place < stop)[:, None] & (step < width)[None, :]
            given = tl.load(hidden + row[:, None] * width + step[None, :], mask=inside, other=0.0)
            inside = (step < width)[:, None] & (column < expert_width)[None, :]
            gate = product(given, tl.load(matrix + step[:, None], mask=inside, other=0.0), gate, wide)
            below = tl.load(matrix + expert_width * width + step[:, None], mask=inside, other=0.0)
            up = product(given, below, up, wide)
        opened = gate_with(gate.to(kind).to(tl.float32), up.to(kind).to(tl.float32), kind)
        inside = (place < stop)[:, None] & (column < expert_width)[None, :]
        tl.store(inner + place.to(tl.int64)[:, None] * expert_width + column[None, :], opened, mask=inside)


@triton.jit
def down_of_experts(
    inner: tl.tensor,
    down: tl.tensor,
    order: tl.tensor,
    starts: tl.tensor,
    weights: tl.tensor,
    slots: tl.tensor,
    width: tl.constexpr,
    expert_width: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    """slots[pair, c] = the expert's output for the pair, times its weight."""
    expert = tl.program_id(2).to(tl.int64)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    start, stop = tl.load(starts + expert), tl.load(starts + expert + 1)
    kind = slots.dtype.element_ty
    matrix = down + expert * width * expert_width + column[None, :] * expert_width
    for first in range(start + tl.program_id(0) * rows, stop, tl.num_programs(0) * rows):
        place = first + tl.arange(0, rows)
        outer = tl.zeros([rows, columns], tl.float32)
        for begin in range(0, expert_width, depth):
            step = begin + tl.arange(0, depth)
            inside = (place < stop)[:, None] & (step < expert_width)[None, :]
            given = tl.load(inner + place.to(tl.int64)[:, None] * expert_width + step[None, :], mask=inside, other=0.0)
            inside = (step < expert_width)[:, None] & (column < width)[None, :]
            outer = product(given, tl.load(matrix + step[:, None], mask=inside, other=0.0), outer, wide)
        pair = tl.load(order + place, mask=place < stop, other=0).to(tl.int64)
        weight = tl.load(weights + pair, mask=place < stop, other=0.0).to(tl.float32)[:, None]
        weighted = (outer.to(kind).to(tl.float32) * weight).to(kind)
        inside = (place < stop)[:, None] & (column < width)[None, :]
        tl.store(slots + pair[:, None] * width + column[None, :], weighted, mask=inside)
