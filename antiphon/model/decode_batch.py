"""Attention of one new row each of several requests, in shapes that no request changes: what a CUDA graph can hold."""

import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.model.attention import PagedKeyValues


class DecodeBatch:
    """The plan of attention for one step, worked out on the device from three tensors that are written before it runs.

    slots int64 (requests): where each new row is kept; page_tables int32 (requests, pages): the pages of each request,
    filled up with any; lengths int32 (requests): rows in sight, the new one included, at least one.
    """

    def __init__(self, slots: Tensor, page_tables: Tensor, lengths: Tensor, keys_values: PagedKeyValues) -> None:
        self.slots, self.page_tables, self.lengths = slots, page_tables, lengths
        places = torch.arange(keys_values.page_size, device=slots.device)
        context = (page_tables.unsqueeze(-1) * keys_values.page_size + places).flatten(1)  # (requests, rows)
        in_sight = torch.arange(context.shape[1], device=slots.device) < lengths.unsqueeze(1)
        # What is out of sight may be no number, which a weight of zero does not help against: the first row stands in.
        self._context = torch.where(in_sight, context, context.narrow(1, 0, 1)).flatten()
        like = keys_values.keys
        hidden = torch.zeros(in_sight.shape, dtype=like.dtype, device=like.device)
        self._mask = hidden.masked_fill_(in_sight.logical_not(), float("-inf")).view(len(slots), 1, 1, -1)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, layer: int, keys_values: PagedKeyValues) -> Tensor:
        """queries (requests, heads, head width), keys and values (requests, kv heads, head width) -> (requests, heads *
        width). The query heads that share a key head stand as rows of one attention: no key is copied for them."""
        keys_values.write(layer, self.slots, keys, values)
        requests, kv_heads, width = keys.shape
        seen = (self._seen(kept, layer, requests) for kept in (keys_values.keys, keys_values.values))
        grouped = queries.view(requests, kv_heads, -1, width)
        return F.scaled_dot_product_attention(grouped, *seen, attn_mask=self._mask).flatten(1)

    def _seen(self, kept: Tensor, layer: int, requests: int) -> Tensor:
        """(requests, kv heads, rows, head width)"""
        rows = kept.select(0, layer).index_select(0, self._context)
        return rows.view(requests, -1, *kept.shape[2:]).transpose(1, 2)
