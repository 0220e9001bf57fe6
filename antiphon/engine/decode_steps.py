"""Decode steps of fixed shape: one row each of a few requests, computed by the least step in which they have room."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from antiphon.engine.graphs import Graphs, InputBlock, Ladder, doubling
from antiphon.model.attention import PagedKeyValues
from antiphon.model.decode_batch import DecodeBatch

ResultT = TypeVar("ResultT", covariant=True)

# Bytes of keys, and again of values, that one layer of a step may gather.
_GATHERED_BYTES: Final = 256 << 20
_LEAST_CONTEXT_ROWS: Final = 512
# Where nothing is gathered, so long a context only spares the host the longest page tables.
_SHORT_CONTEXT_ROWS: Final = 4096


class DecodeRow(NamedTuple):
    """One request's share: its row `row`, kept in `pages`, at `position` on all axes; token_id is what the row is made
    of beside what is fed from the device."""

    row: int
    pages: Sequence[int]
    position: float
    token_id: int


class DecodeCompute(Protocol[ResultT]):
    def __call__(self, fed: Tensor, token_ids: Tensor, positions: Tensor, batch: DecodeBatch) -> ResultT:
        """fed (requests, ...) and token_ids int64 (requests) make the rows; positions float32 (3, requests)."""
        ...


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    requests: int
    # Of one request.
    context_rows: int


class DecodeStep(Generic[ResultT]):
    """The step with room for `requests` requests of `pages` pages each."""

    def __init__(
        self,
        shape: tuple[int, ...],
        fed: Tensor,
        compute: DecodeCompute[ResultT],
        store: PagedKeyValues,
        graphs: Graphs,
    ) -> None:
        """fed (requests, ...): what the previous step of each request left on the device, written by `run`."""
        requests, pages = shape
        self._requests, self._store, self._fed = requests, store, fed
        self._block = block = InputBlock(graphs.device)
        self._slots, self._token_ids = block.field(np.int64, requests), block.field(np.int64, requests)
        self._positions = block.field(np.float32, 3, requests)
        self._lengths, self._tables = block.field(np.int32, requests), block.field(np.int32, requests, pages)
        block.seal()
        self._write([DecodeRow(0, [store.spare_slot // store.page_size], 0.0, 0)])
        slots, tables, lengths = self._slots.device, self._tables.device, self._lengths.device
        token_ids, positions = self._token_ids.device, self._positions.device
        self._compute = graphs.captured(
            lambda: compute(fed, token_ids, positions, DecodeBatch(slots, tables, lengths, store))
        )

    def run(self, rows: Sequence[DecodeRow], fed: Sequence[Tensor]) -> ResultT:
        """rows: 1 to as many as there is room for; fed: of each, where the device has it. The result is as long as the
        room, its first rows those of the requests, and valid until the next run. Waits for nothing."""
        self._write(rows)
        torch.stack([*fed, *[fed[0]] * (self._requests - len(fed))], out=self._fed)
        return self._compute()

    def _write(self, rows: Sequence[DecodeRow]) -> None:
        """The first request fills the room up: its stand-ins ask for no experts that it does not, and keep nothing."""
        self._block.begin()
        slots, token_ids, positions = self._slots.host, self._token_ids.host, self._positions.host
        lengths, tables = self._lengths.host, self._tables.host
        count, page_size = len(rows), self._store.page_size
        slots[count:] = self._store.spare_slot
        for place, (row, pages, position, token_id) in enumerate(rows):
            seen = pages[: row // page_size + 1]
            slots[place] = seen[-1] * page_size + row % page_size
            token_ids[place], positions[:, place], lengths[place] = token_id, position, row + 1
            tables[place, : len(seen)] = seen
            tables[place, len(seen) :] = seen[0]
        for field in (token_ids, lengths, tables):
            field[count:] = field[0]
        positions[:, count:] = positions[:, :1]
        self._block.send()


class DecodeSteps(Generic[ResultT]):
    """The ladder of them. like: one request's share of what is fed, on the device."""

    def __init__(
        self, compute: DecodeCompute[ResultT], like: Tensor, store: PagedKeyValues, limits: DecodeLimits, graphs: Graphs
    ) -> None:
        self._page_size = store.page_size

        def make(shape: tuple[int, ...]) -> DecodeStep[ResultT]:
            return DecodeStep(shape, like.new_zeros(shape[0], *like.shape), compute, store, graphs)

        self._ladder: Ladder[DecodeStep[ResultT]] = Ladder(_shapes(limits, store), make)

    def fitting(self, rows: Sequence[DecodeRow]) -> DecodeStep[ResultT] | None:
        """None when they need more room than any step has."""
        longest = max(each.row for each in rows) + 1
        return self._ladder.fitting(len(rows), -(-longest // self._page_size))


def _shapes(limits: DecodeLimits, store: PagedKeyValues) -> list[tuple[int, ...]]:
    """(requests, pages)"""
    return [*rooms(doubling(limits.requests), limits.context_rows, store)]


def rooms(row_counts: Sequence[int], context_rows: int, store: PagedKeyValues) -> Iterator[tuple[int, int]]:
    """(rows, pages that each may see): each of the counts with some contexts up to `context_rows`, as far as what a
    layer gathers is not too much. Attention that reads pages gathers nothing, and reads no further than a request
    reaches."""
    gathers = store.kernels.attention is None
    least, factor = (_LEAST_CONTEXT_ROWS, 4) if gathers else (_SHORT_CONTEXT_ROWS, 16)
    most_slots = _GATHERED_BYTES // (store.keys.shape[2] * store.keys.shape[3] * store.keys.itemsize)
    for rows in row_counts:
        for context in doubling(context_rows, min(least, context_rows), factor):
            if not gathers or rows * context <= most_slots:
                yield rows, -(-context // store.page_size)
