"""One new row of each request over its pages: parts of the context side by side, and what joins them."""

import triton
import triton.language as tl

from antiphon.model.kernels.launching import product


@triton.jit(do_not_specialize=["pages_stride"])
def attend_parts(
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    starts: tl.tensor,
    lengths: tl.tensor,
    pages: tl.tensor,
    mixed: tl.tensor,
    peaks: tl.tensor,
    sums: tl.tensor,
    query_stride: int,
    pages_stride: int,
    share: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    width_block: tl.constexpr,
    page_size: tl.constexpr,
    scale: tl.constexpr,
    share_block: tl.constexpr,
    parts: tl.constexpr,
    rows: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    """Program (request, key head, part): the query heads that share the key head, over the rows of that part."""
    request, kv_head, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + request)
    part_rows = tl.cdiv(tl.cdiv(length, parts), rows) * rows
    begin, end = part * part_rows, tl.minimum((part + 1) * part_rows, length)
    shared, column = tl.arange(0, share_block), tl.arange(0, width_block)
    head = kv_head * share + shared
    own = (shared < share)[:, None] & (column < width)[None, :]
    start = tl.load(starts + request).to(tl.int64)
    query = tl.load(queries + start * query_stride + head[:, None] * width + column[None, :], mask=own, other=0.0)
    peak = tl.full([share_block], float("-inf"), tl.float32)
    total, mix = tl.zeros([share_block], tl.float32), tl.zeros([share_block, width_block], tl.float32)
    for first in range(begin, end, rows):
        row = first + tl.arange(0, rows)
        page = tl.load(pages + request * pages_stride + row // page_size, mask=row < end, other=0).to(tl.int64)
        at = ((page * page_size + row % page_size) * kv_heads + kv_head)[:, None] * width + column[None, :]
        inside = (row < end)[:, None] & (column < width)[None, :]
        key = tl.load(keys + at, mask=inside, other=0.0)
        scores = product(query, tl.trans(key), tl.zeros([share_block, rows], tl.float32), wide) * scale
        scores = tl.where((row < end)[None, :], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        weights, faded = tl.exp2(scores - higher[:, None]), tl.exp2(peak - higher)
        value = tl.load(values + at, mask=inside, other=0.0)
        mix = product(weights.to(value.dtype), value, mix * faded[:, None], wide)
        total, peak = total * faded + tl.sum(weights, 1), higher
    result = (request * kv_heads * share + head) * parts + part
    tl.store(peaks + result, peak, mask=shared < share)
    tl.store(sums + result, total, mask=shared < share)
    tl.store(mixed + result[:, None] * width + column[None, :], mix, mask=own & (begin + 0 * column < end)[None, :])


@triton.jit
def join_parts(
    mixed: tl.tensor,
    peaks: tl.tensor,
    sums: tl.tensor,
    starts: tl.tensor,
    attended: tl.tensor,
    width: tl.constexpr,
    width_block: tl.constexpr,
    parts: tl.constexpr,
) -> None:
    """Program (request, head): parts in which nothing lies weigh nothing; where nothing lies at all, zeros."""
    request, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    part, column = tl.arange(0, parts), tl.arange(0, width_block)
    result = (request * tl.num_programs(1) + head) * parts + part
    total = tl.load(sums + result)
    filled = total != 0.0
    peak = tl.where(filled, tl.load(peaks + result), -3.0e38)
    faded = tl.where(filled, tl.exp2(peak - tl.max(peak, 0)), 0.0)
    inside = filled[:, None] & (column < width)[None, :]
    mix = tl.load(mixed + result[:, None] * width + column[None, :], mask=inside, other=0.0)
    weight = tl.sum(total * faded, 0)
    joined = tl.sum(mix * faded[:, None], 0) / tl.where(weight == 0.0, 1.0, weight)
    start = tl.load(starts + request).to(tl.int64)
    at = attended + (start * tl.num_programs(1) + head) * width + column
    tl.store(at, joined.to(attended.dtype.element_ty), mask=column < width)
