"""Attention of any mixture of prompt chunks and single rows, in shapes that no request changes: what a CUDA graph can
hold."""

from dataclasses import dataclass

import torch
from torch import Tensor

from antiphon.model.attention import PagedKeyValues
from antiphon.model.decode_batch import DecodeBatch
from antiphon.model.kernels.arguments import PagedRequests


@dataclass(frozen=True, slots=True)
class PrefillTables:
    """What a step follows, on the device, written before it runs."""

    # Where each new row is kept, int64 (rows).
    slots: Tensor
    # Of each row, for attention that gathers: its request, counted over singles and then chunks, int64 (rows); and the
    # rows that it sees, itself included, int32 (rows), at least one.
    owners: Tensor
    rows_in_sight: Tensor
    # Requests with one new row, and those with more; who is missing has no rows and a length of zero, and, as a single,
    # starts at a row that is nobody's or a chunk's.
    singles: PagedRequests
    chunks: PagedRequests


class PrefillBatch:
    """The plan of attention for one step."""

    def __init__(self, tables: PrefillTables, keys_values: PagedKeyValues) -> None:
        self.slots = tables.slots
        # Singles first: where one is missing they leave zeros, which a chunk then writes over.
        self._paged = (tables.singles, tables.chunks)
        if keys_values.kernels.attention is None:
            self._rows = _row_by_row(tables, keys_values)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, layer: int, keys_values: PagedKeyValues) -> Tensor:
        """queries (rows, heads, head width), keys and values (rows, kv heads, head width) -> (rows, heads * width);
        rows of nobody get anything finite."""
        keys_values.write(layer, self.slots, keys, values)
        return self.attend_kept(queries, keys, values, layer, keys_values)

    def attend_kept(
        self, queries: Tensor, keys: Tensor, values: Tensor, layer: int, keys_values: PagedKeyValues
    ) -> Tensor:
        """The same where keys and values are in their slots already."""
        attention = keys_values.kernels.attention
        if attention is None:
            return self._rows.attend_kept(queries, keys, values, layer, keys_values)
        place = keys_values.place(layer, self.slots)
        attended = queries.new_zeros(queries.shape).flatten(1)
        for requests in self._paged:
            attention(queries, place.keys, place.values, requests, attended)
        return attended


def _row_by_row(tables: PrefillTables, keys_values: PagedKeyValues) -> DecodeBatch:
    """Every row as a request of its own, which no other row's numbers can spoil."""
    pages = torch.cat((tables.singles.pages, tables.chunks.pages)).index_select(0, tables.owners)
    return DecodeBatch(tables.slots, pages, tables.rows_in_sight, keys_values)
