"""Keys and values of many requests in preallocated pages, and attention of one step's packed rows over them.

A step packs the new rows of all its requests into one (rows, width) matrix. Everything that depends on who is in the
step (slots, masks, groups) is worked out once in `PackedBatch.build`; the layers only follow it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.model.config import DecoderConfig
from antiphon.model.kernels.arguments import CachePlace, PackedRows, PagedRequests
from antiphon.model.kernels.choice import Kernels, kernels_for
from antiphon.model.kernels.page_tables import page_tables
from antiphon.model.placement import sent

__all__ = ["PackedBatch", "PackedRows", "PagedKeyValues", "StepAttention"]

# Decode rows share one padded gather unless the longest context exceeds the shortest by this factor, or the keys are
# more than so many bytes: while they fit its cache a CPU attends to them several times as fast; elsewhere this bounds
# the memory.
PADDING_FACTOR = 4
_BYTES_AT_ONCE_CPU, _BYTES_AT_ONCE = 2 << 20, 256 << 20


class PagedKeyValues:
    """Keys and values of all layers. A request's row r lies in slot pages[r // size] * size + r % size. One thread at a
    time: what is read lies in a buffer that every read uses again."""

    def __init__(
        self,
        config: DecoderConfig,
        page_count: int,
        page_size: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        kernels: Kernels | None = None,
    ) -> None:
        """kernels: those of the decoder that uses it; unset, those of the device."""
        self.kernels = kernels or kernels_for(device)
        shape = (config.layers, (page_count + 1) * page_size, config.kv_heads, config.head_width)
        self.page_size = page_size
        # Of a page beyond those that are counted: rows that only fill up a step of fixed shape are kept there.
        self.spare_slot = page_count * page_size
        # Zeros, because padded places are multiplied by a weight of zero, and zero times garbage may be no number.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        bytes_at_once = _BYTES_AT_ONCE_CPU if self.keys.is_cpu else _BYTES_AT_ONCE
        self.slots_at_once = bytes_at_once // (config.kv_heads * config.head_width * dtype.itemsize)
        # (keys and values, slots, kv heads, head width). New memory for every read costs more than the copy on a CPU.
        self._gathered = self.keys.new_empty(2, 0, *shape[2:])

    def place(self, layer: int, slots: Tensor) -> CachePlace:
        """Where a layer keeps rows in these slots, (rows)."""
        return CachePlace(self.keys.select(0, layer), self.values.select(0, layer), slots)

    def write(self, layer: int, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        self.keys.select(0, layer).index_copy_(0, slots, keys)
        self.values.select(0, layer).index_copy_(0, slots, values)

    def read(self, layer: int, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Both (slots, kv heads, head width), valid until the next read."""
        room = self._gathered.shape[1]
        if len(slots) > room:
            self._gathered = self.keys.new_empty(2, max(len(slots), 2 * room), *self.keys.shape[2:])
        keys, values = self._gathered[:, : len(slots)]
        torch.index_select(self.keys[layer], 0, slots, out=keys)
        torch.index_select(self.values[layer], 0, slots, out=values)
        return keys, values


class StepAttention(Protocol):
    """Who attends to what in one step."""

    @property
    def slots(self) -> Tensor:
        """Where each new row is kept, (rows)."""
        ...

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, layer: int, keys_values: PagedKeyValues) -> Tensor:
        """Keeps keys and values (rows, kv heads, head width); queries (rows, heads, head width) -> (rows, heads *
        width)."""
        ...

    def attend_kept(
        self, queries: Tensor, keys: Tensor, values: Tensor, layer: int, keys_values: PagedKeyValues
    ) -> Tensor:
        """The same where keys and values are in their slots already."""
        ...


@dataclass(frozen=True, slots=True)
class _Prefill:
    """Several rows of one request."""

    start: int
    stop: int
    # Slots of the request's rows up to the last new one; None when all of them are in this very step.
    context: Tensor | None
    # (new rows, context) added to the scores; None when causality alone decides.
    mask: Tensor | None


@dataclass(frozen=True, slots=True)
class _Decodes:
    """One row each of several requests."""

    # Their places in the packed step; None when they are the whole step in order.
    places: Tensor | None
    # (requests * longest context) slots, padded with the request's own first slot.
    context: Tensor
    # (requests, 1, 1, longest context) added to the scores; None when all contexts are equally long.
    mask: Tensor | None
    requests: int


class PackedBatch:
    """The plan of attention for one step."""

    def __init__(
        self,
        slots: Tensor,
        last_places: list[int],
        prefills: list[_Prefill],
        decodes: list[_Decodes],
        paged: Sequence[PagedRequests] = (),
    ) -> None:
        """paged: all of the step where kernels attend to pages; prefills and decodes where contexts are gathered."""
        # Where each new row is kept, (rows).
        self.slots = slots
        # The place of each request's last row in the packed step, in the order of the requests.
        self.last_places = last_places
        self._prefills, self._decodes, self._paged = prefills, decodes, paged

    @classmethod
    def build(cls, rows: Sequence[PackedRows], keys_values: PagedKeyValues) -> "PackedBatch":
        """rows: the requests of the step, in the order in which their rows are packed."""
        page_size, like = keys_values.page_size, keys_values.keys
        placed = list(zip(rows, _starts(rows), strict=True))
        last_places = [start + each.row_count - 1 for each, start in placed]
        if keys_values.kernels.attention is not None:
            tables = page_tables(rows, page_size, like.device)
            return cls(tables.slots, last_places, [], [], tables.requests)
        slots = [slot for each in rows for slot in _new_slots(each, page_size)]
        prefills = [_prefill(each, start, page_size, like) for each, start in placed if each.row_count > 1]
        single = [(each, start) for each, start in placed if each.row_count == 1]
        groups = _groups(single, keys_values.slots_at_once) if single else []
        decodes = [_decodes(group, len(slots), page_size, like) for group in groups]
        return cls(_sent(slots, like), last_places, prefills, decodes)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, layer: int, keys_values: PagedKeyValues) -> Tensor:
        """queries (rows, heads, head width), keys and values (rows, kv heads, head width) -> (rows, heads * width)."""
        keys_values.write(layer, self.slots, keys, values)
        return self.attend_kept(queries, keys, values, layer, keys_values)

    def attend_kept(
        self, queries: Tensor, keys: Tensor, values: Tensor, layer: int, keys_values: PagedKeyValues
    ) -> Tensor:
        """The same where keys and values are in their slots already."""
        attended = queries.new_empty(queries.shape).flatten(1)
        if keys_values.kernels.attention is not None:
            place = keys_values.place(layer, self.slots)
            for requests in self._paged:
                keys_values.kernels.attention(queries, place.keys, place.values, requests, attended)
        for prefill in self._prefills:
            new = slice(prefill.start, prefill.stop)
            context = (keys[new], values[new]) if prefill.context is None else keys_values.read(layer, prefill.context)
            attended[new] = _attend_prefill(prefill, queries[new], *context)
        for group in self._decodes:
            context = keys_values.read(layer, group.context)
            if group.places is None:
                return _attend_decodes(group, queries, *context)
            chosen = queries.index_select(0, group.places)
            attended.index_copy_(0, group.places, _attend_decodes(group, chosen, *context))
        return attended


def _attend_prefill(prefill: _Prefill, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    share = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(share, 1), values.repeat_interleave(share, 1)
    queries, keys, values = (tensor.transpose(0, 1).unsqueeze(0) for tensor in (queries, keys, values))
    attended = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=prefill.mask, is_causal=prefill.mask is None
    )
    return attended[0].transpose(0, 1).flatten(1)


def _attend_decodes(group: _Decodes, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The query heads that share a key head stand as rows of one attention: no key is copied for them."""
    kv_heads, width = keys.shape[1], keys.shape[2]
    grouped = queries.view(group.requests, kv_heads, -1, width)
    keys, values = (tensor.view(group.requests, -1, kv_heads, width).transpose(1, 2) for tensor in (keys, values))
    return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=group.mask).flatten(1)


def _starts(rows: Sequence[PackedRows]) -> list[int]:
    starts = [0]
    for each in rows:
        starts.append(starts[-1] + each.row_count)
    return starts[:-1]


def _new_slots(rows: PackedRows, page_size: int) -> list[int]:
    new = range(rows.first_row, rows.stop_row)
    return [rows.pages[row // page_size] * page_size + row % page_size for row in new]


def _slots_of_pages(tables: Sequence[Sequence[int]], page_size: int, like: Tensor) -> Tensor:
    """All slots of equally many pages of each request, in order: (requests, slots)."""
    pages = _sent(tables, like).unsqueeze(-1)
    return (pages * page_size + torch.arange(page_size, device=like.device)).flatten(1)


def _prefill(rows: PackedRows, start: int, page_size: int, like: Tensor) -> _Prefill:
    stop = start + rows.row_count
    if rows.first_row == 0:
        return _Prefill(start, stop, None, None)
    context = _slots_of_pages([rows.pages], page_size, like)[0, : rows.stop_row]
    new_rows = torch.arange(rows.first_row, rows.stop_row, device=like.device).unsqueeze(1)
    allowed = torch.arange(rows.stop_row, device=like.device) <= new_rows
    return _Prefill(start, stop, context, _additive(allowed, like.dtype))


def _groups(single: list[tuple[PackedRows, int]], slots_at_once: int) -> list[list[tuple[PackedRows, int]]]:
    """Requests of similar context length together, so that one long context does not pad all others."""
    lengths = [rows.stop_row for rows, _ in single]
    if max(lengths) <= min(min(lengths) * PADDING_FACTOR, slots_at_once // len(single)):
        return [single]
    groups: list[list[tuple[PackedRows, int]]] = []
    for each in sorted(single, key=lambda pair: -pair[0].stop_row):
        longest = groups[-1][0][0].stop_row if groups else 0
        together = bool(groups) and (len(groups[-1]) + 1) * longest <= slots_at_once
        if not together or each[0].stop_row * PADDING_FACTOR < longest:
            groups.append([])
        groups[-1].append(each)
    return groups


def _decodes(group: list[tuple[PackedRows, int]], step_rows: int, page_size: int, like: Tensor) -> _Decodes:
    lengths = [rows.stop_row for rows, _ in group]
    longest = max(lengths)
    page_count = -(-longest // page_size)
    tables = [[*rows.pages[:page_count], *[rows.pages[0]] * (page_count - len(rows.pages))] for rows, _ in group]
    slots = _slots_of_pages(tables, page_size, like)[:, :longest]  # (requests, longest)
    places = [place for _, place in group]
    chosen = None if places == list(range(step_rows)) else _sent(places, like)
    if min(lengths) == longest:
        return _Decodes(chosen, slots.flatten(), None, len(group))
    allowed = torch.arange(longest, device=like.device) < _sent(lengths, like).unsqueeze(1)
    own = torch.where(allowed, slots, slots[:, :1])
    return _Decodes(chosen, own.flatten(), _additive(allowed, like.dtype).view(-1, 1, 1, longest), len(group))


def _sent(numbers: Sequence[int] | Sequence[Sequence[int]], like: Tensor) -> Tensor:
    return sent(np.array(numbers, dtype=np.int64), like.device)


def _additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, float("-inf"))
