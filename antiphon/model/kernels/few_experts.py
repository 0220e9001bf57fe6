"""Experts for few rows: every (row, expert) pair is a product of a matrix and a vector, bound by reading the matrix."""

import triton
import triton.language as tl

from antiphon.model.kernels.fused_rows import gate_with


@triton.jit
def gate_up_of_pairs(
    hidden: tl.tensor,
    gate_up: tl.tensor,
    expert_ids: tl.tensor,
    inner: tl.tensor,
    width: tl.constexpr,
    expert_width: tl.constexpr,
    top_k: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> None:
    """Pair p, columns c: inner[p, c] = silu(gate) * up."""
    pair = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    kind = inner.dtype.element_ty
    expert = tl.load(expert_ids + pair)
    matrix = gate_up + expert * 2 * expert_width * width + column[:, None] * width
    gate, up = tl.zeros([columns, depth], tl.float32), tl.zeros([columns, depth], tl.float32)
    for first in tl.static_range(0, width, depth):
        place = first + tl.arange(0, depth)
        inside = (column < expert_width)[:, None] & (place < width)[None, :]
        row = tl.load(hidden + pair // top_k * width + place, mask=place < width, other=0.0).to(tl.float32)[None, :]
        gate += tl.load(matrix + place[None, :], mask=inside, other=0.0).to(tl.float32) * row
        up += tl.load(matrix + expert_width * width + place[None, :], mask=inside, other=0.0).to(tl.float32) * row
    gates, ups = tl.sum(gate, 1).to(kind).to(tl.float32), tl.sum(up, 1).to(kind).to(tl.float32)
    tl.store(inner + pair * expert_width + column, gate_with(gates, ups, kind), mask=column < expert_width)


@triton.jit
def down_of_pairs(
    inner: tl.tensor,
    down: tl.tensor,
    expert_ids: tl.tensor,
    weights: tl.tensor,
    mixed: tl.tensor,
    width: tl.constexpr,
    expert_width: tl.constexpr,
    top_k: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
) -> None:
    """Row r, columns c: mixed[r, c] = the weighted sum over the row's slots, in their order."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    kind = mixed.dtype.element_ty
    total = tl.zeros([columns], tl.float32)
    for slot in tl.static_range(top_k):
        pair = row * top_k + slot
        matrix = down + tl.load(expert_ids + pair) * width * expert_width + column[:, None] * expert_width
        outer = tl.zeros([columns, depth], tl.float32)
        for first in tl.static_range(0, expert_width, depth):
            place = first + tl.arange(0, depth)
            inside = (column < width)[:, None] & (place < expert_width)[None, :]
            given = tl.load(inner + pair * expert_width + place, mask=place < expert_width, other=0.0)
            outer += (
                tl.load(matrix + place[None, :], mask=inside, other=0.0).to(tl.float32) * given.to(tl.float32)[None, :]
            )
        rounded = tl.sum(outer, 1).to(kind).to(tl.float32)
        total += (rounded * tl.load(weights + pair).to(tl.float32)).to(kind).to(tl.float32)
    tl.store(mixed + row * width + column, total.to(kind), mask=column < width)
