"""Attention of one new row each of several requests, in shapes that no request changes: what a CUDA graph can hold."""

import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.model.attention import PagedKeyValues
from antiphon.model.kernels.arguments import PagedRequests


class DecodeBatch:
    """The plan of attention for one step, worked out on the device from three tensors that are written before it runs.

    slots int64 (requests): where each new row is kept; page_tables int32 (requests, pages): the pages of each request,
    filled up with any; lengths int32 (requests): rows in sight, the new one included, at least one.
    """

    def __init__(self, slots: Tensor, page_tables: Tensor, lengths: Tensor, keys_values: PagedKeyValues) -> None:
        self.slots, self.page_tables, self.lengths = slots, page_tables, lengths
        # What either way of attending reads: pages where they lie, or contexts gathered side by side.
        self._requests = _as_requests(page_tables, lengths, keys_values.page_size)
        if keys_values.kernels.attention is None:
            self._context, self._mask = _gathered(page_tables, lengths, keys_values)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, layer: int, keys_values: PagedKeyValues) -> Tensor:
        """queries (requests, heads, head width), keys and values (requests, kv heads, head width) -> (requests, heads *
        width). The query heads that share a key head stand as rows of one attention: no key is copied for them."""
        keys_values.write(layer, self.slots, keys, values)
        return self.attend_kept(queries, keys, values, layer, keys_values)

    def attend_kept(
        self, queries: Tensor, keys: Tensor, values: Tensor, layer: int, keys_values: PagedKeyValues
    ) -> Tensor:
        """The same where keys and values are in their slots already."""
        place, attention = keys_values.place(layer, self.slots), keys_values.kernels.attention
        if attention is not None:
            attended = queries.new_empty(queries.shape).flatten(1)
            attention(queries, place.keys, place.values, self._requests, attended)
            return attended
        grouped = queries.view(*keys.shape[:2], -1, keys.shape[2])
        seen_keys, seen_values = self._seen(place.keys, keys), self._seen(place.values, values)
        return F.scaled_dot_product_attention(grouped, seen_keys, seen_values, attn_mask=self._mask).flatten(1)

    def _seen(self, kept: Tensor, new: Tensor) -> Tensor:
        """All rows in sight of the requests whose new rows are given, (requests, kv heads, rows, head width)."""
        return kept.index_select(0, self._context).view(len(new), -1, *new.shape[1:]).transpose(1, 2)


def _as_requests(page_tables: Tensor, lengths: Tensor, page_size: int) -> PagedRequests:
    places = torch.arange(len(lengths), dtype=torch.int32, device=lengths.device)
    return PagedRequests(places, torch.ones_like(lengths), lengths, page_tables, page_size, most_rows=1)


def _gathered(page_tables: Tensor, lengths: Tensor, keys_values: PagedKeyValues) -> tuple[Tensor, Tensor]:
    """Slots of every request's rows side by side, (requests * rows), and what hides those out of sight, added to the
    scores, (requests, 1, 1, rows)."""
    places = torch.arange(keys_values.page_size, device=lengths.device)
    context = (page_tables.unsqueeze(-1) * keys_values.page_size + places).flatten(1)  # (requests, rows)
    in_sight = torch.arange(context.shape[1], device=lengths.device) < lengths.unsqueeze(1)
    like = keys_values.keys
    hidden = torch.zeros(in_sight.shape, dtype=like.dtype, device=like.device)
    mask = hidden.masked_fill_(in_sight.logical_not(), float("-inf")).view(len(lengths), 1, 1, -1)
    # What is out of sight may be no number, which a weight of zero does not help against: the first row stands in.
    return torch.where(in_sight, context, context.narrow(1, 0, 1)).flatten(), mask
