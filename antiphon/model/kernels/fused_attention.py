"""Attention over pages where they lie: nothing is gathered, and every shape is fixed by the tensors' shapes.

Decoding rows split their context over programs whose partial results a second kernel joins, so that one long context
keeps the whole device busy; how it is split depends on its own length only. Chunks of prompts go block by block. Sums
are float32 and weights are rounded to the values' type before they are applied: results differ from one attention
over the gathered context by 1e-5 in float32, by 2**-7 of the largest value in bfloat16.
"""

import math

import torch
import triton
from torch import Tensor

from antiphon.model.kernels.arguments import PagedRequests
from antiphon.model.kernels.decode_attention import attend_parts, join_parts
from antiphon.model.kernels.launching import launch, power_of_two, widens
from antiphon.model.kernels.prefill_attention import attend_blocks

# Parts of a context, each a multiple of so many rows.
_PARTS, _ROWS = 16, 64
# Query rows times the query heads that share a key head, of one block of a prefill: as many as registers hold.
_BLOCK, _BLOCK_FLOAT32 = 128, 32


def attend(queries: Tensor, keys: Tensor, values: Tensor, requests: PagedRequests, attended: Tensor) -> None:
    queries = queries if queries.stride()[1:] == (queries.shape[2], 1) else queries.contiguous()
    (_attend_decodes if requests.most_rows == 1 else _attend_prefills)(queries, keys, values, requests, attended)


def _attend_decodes(queries: Tensor, keys: Tensor, values: Tensor, requests: PagedRequests, attended: Tensor) -> None:
    count, heads = len(requests.starts), queries.shape[1]
    # Of each part: its values times their weights, the largest of its scores and the sum of its weights.
    mixed = torch.empty((count, heads, _PARTS, queries.shape[2]), dtype=torch.float32, device=queries.device)
    peaks, sums = torch.empty((2, count, heads, _PARTS), dtype=torch.float32, device=queries.device)
    shapes = _shapes(queries, keys, requests)
    launch(
        attend_parts,
        (count, keys.shape[1], _PARTS),
        *(queries, keys, values, requests.starts, requests.lengths, requests.pages, mixed, peaks, sums),
        *(queries.stride(0), requests.pages.stride(0)),
        **shapes,
        scale=_scale(shapes["width"]),
        share_block=max(16, power_of_two(shapes["share"])),
        parts=_PARTS,
        rows=_ROWS,
        wide=widens(keys.dtype),
        stages=2,
    )
    launch(
        join_parts,
        (count, heads),
        *(mixed, peaks, sums, requests.starts, attended),
        width=shapes["width"],
        width_block=shapes["width_block"],
        parts=_PARTS,
        warps=2,
    )


def _attend_prefills(queries: Tensor, keys: Tensor, values: Tensor, requests: PagedRequests, attended: Tensor) -> None:
    shapes = _shapes(queries, keys, requests)
    share_block = power_of_two(shapes["share"])
    block = max(_BLOCK_FLOAT32 if keys.dtype == torch.float32 else _BLOCK, share_block)
    launch(
        attend_blocks,
        (triton.cdiv(requests.most_rows, block // share_block), keys.shape[1], len(requests.starts)),
        *(queries, keys, values, requests.starts, requests.row_counts, requests.lengths, requests.pages, attended),
        *(queries.stride(0), requests.pages.stride(0)),
        **shapes,
        scale=_scale(shapes["width"]),
        share_block=share_block,
        block=block,
        rows=_ROWS,
        wide=widens(keys.dtype),
        warps=8,
        stages=2,
    )


def _shapes(queries: Tensor, keys: Tensor, requests: PagedRequests) -> dict[str, int]:
    """What both kinds of attention compile in."""
    heads, width = queries.shape[1:]
    return {
        "share": heads // keys.shape[1],
        "kv_heads": keys.shape[1],
        "width": width,
        "width_block": power_of_two(width),
        "page_size": requests.page_size,
    }


def _scale(width: int) -> float:
    """Scores are exponents of two, which a GPU raises at once."""
    return math.log2(math.e) / math.sqrt(width)
