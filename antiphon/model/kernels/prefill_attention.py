"""Several new rows of each request over its pages, in blocks of rows and of the query heads that share a key head."""

import triton
import triton.language as tl

from antiphon.model.kernels.launching import product


@triton.jit(do_not_specialize=["pages_stride"])
def attend_blocks(
    queries: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    starts: tl.tensor,
    row_counts: tl.tensor,
    lengths: tl.tensor,
    pages: tl.tensor,
    attended: tl.tensor,
    query_stride: int,
    pages_stride: int,
    share: tl.constexpr,
    kv_heads: tl.constexpr,
    width: tl.constexpr,
    width_block: tl.constexpr,
    page_size: tl.constexpr,
    scale: tl.constexpr,
    share_block: tl.constexpr,
    block: tl.constexpr,
    rows: tl.constexpr,
    wide: tl.constexpr,
) -> None:
    """Program (block of rows, key head, request). Lane l is row l // share_block of the block, query head l modulo it;
    a request that has no such block costs the look at its length."""
    block_rows: tl.constexpr = block // share_block
    kv_head, request = tl.program_id(1), tl.program_id(2).to(tl.int64)
    row_count, length = tl.load(row_counts + request), tl.load(lengths + request)
    lane, column = tl.arange(0, block), tl.arange(0, width_block)
    new_row, head = tl.program_id(0) * block_rows + lane // share_block, kv_head * share + lane % share_block
    own = ((new_row < row_count) & (lane % share_block < share))[:, None] & (column < width)[None, :]
    packed = tl.load(starts + request).to(tl.int64) + new_row
    query = tl.load(
        queries + packed[:, None] * query_stride + head[:, None] * width + column[None, :], mask=own, other=0.0
    )
    peak = tl.full([block], float("-inf"), tl.float32)
    total, mix = tl.zeros([block], tl.float32), tl.zeros([block, width_block], tl.float32)
    seen = length - row_count + tl.minimum((tl.program_id(0) + 1) * block_rows, row_count)
    for first in range(0, tl.where(tl.program_id(0) * block_rows < row_count, seen, 0), rows):
        row = first + tl.arange(0, rows)
        page = tl.load(pages + request * pages_stride + row // page_size, mask=row < seen, other=0).to(tl.int64)
        at = ((page * page_size + row % page_size) * kv_heads + kv_head)[:, None] * width + column[None, :]
        inside = (row < seen)[:, None] & (column < width)[None, :]
        key = tl.load(keys + at, mask=inside, other=0.0)
        scores = product(query, tl.trans(key), tl.zeros([block, rows], tl.float32), wide) * scale
        scores = tl.where(row[None, :] <= (length - row_count + new_row)[:, None], scores, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        weights, faded = tl.exp2(scores - higher[:, None]), tl.exp2(peak - higher)
        value = tl.load(values + at, mask=inside, other=0.0)
        mix = product(weights.to(value.dtype), value, mix * faded[:, None], wide)
        total, peak = total * faded + tl.sum(weights, 1), higher
    mix = mix / tl.where(total == 0.0, 1.0, total)[:, None]
    at = attended + (packed[:, None] * kv_heads * share + head[:, None]) * width + column[None, :]
    tl.store(at, mix.to(attended.dtype.element_ty), mask=own)
