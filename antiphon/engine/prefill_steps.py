"""Prefill steps of fixed shape: chunks of prompts and single rows of several requests in any mixture, computed by the
least step in which they have room."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from antiphon.engine.decode_steps import rooms
from antiphon.engine.graphs import Field, Graphs, InputBlock, Ladder, doubling
from antiphon.model.attention import PackedRows, PagedKeyValues, StepAttention
from antiphon.model.kernels.arguments import PagedRequests
from antiphon.model.prefill_batch import PrefillBatch, PrefillTables

ResultT = TypeVar("ResultT", covariant=True)

_LEAST_ROWS: Final = 64
# There is room for a chunk for so many rows of a step, and for some in the least: each costs attention programs, also
# where it is missing.
_ROWS_A_CHUNK: Final = 16
_LEAST_CHUNKS: Final = 4


@dataclass(frozen=True, slots=True)
class RowNumbers:
    """What the host knows of the rows of a step, in the order in which they are packed."""

    # Of those that are made of ids, int64 (rows).
    token_ids: NDArray[np.int64]
    # Float32 (3, rows).
    positions: NDArray[np.float32]
    # Places of the rows from which an output is sampled, and of those whose id is only on the device.
    sampled: Sequence[int]
    unknown: Sequence[int] = ()


class PrefillCompute(Protocol[ResultT]):
    def __call__(self, rows: Tensor, positions: Tensor, batch: StepAttention) -> ResultT:
        """rows (rows, width), positions float32 (3, rows)."""
        ...


@dataclass(frozen=True, slots=True)
class PrefillLimits:
    requests: int
    # Of one request.
    context_rows: int
    # Of one step.
    rows: int


class _Shape(NamedTuple):
    rows: int
    # Requests with one new row, and with more.
    singles: int
    chunks: int
    # Of one request.
    pages: int


class _Requests:
    """Room in a step's block for some requests, as the attention kernels read them."""

    def __init__(self, block: InputBlock, room: int, pages: int) -> None:
        self._room = room
        self._starts, self._row_counts = block.field(np.int32, room), block.field(np.int32, room)
        self._lengths, self._pages = block.field(np.int32, room), block.field(np.int32, room, pages)

    def write(self, placed: Sequence[tuple[PackedRows, int]], nobodys_start: int, page_size: int) -> None:
        """placed: requests and where their rows begin."""
        starts, counts, lengths = self._starts.host, self._row_counts.host, self._lengths.host
        pages, missing = self._pages.host, slice(len(placed), self._room)
        starts[missing], counts[missing], lengths[missing] = nobodys_start, 0, 0
        for place, (rows, start) in enumerate(placed):
            seen = rows.pages[: -(-rows.stop_row // page_size)]
            starts[place], counts[place], lengths[place] = start, rows.row_count, rows.stop_row
            pages[place, : len(seen)] = seen
            pages[place, len(seen) :] = seen[0]

    def on_device(self, page_size: int, most_rows: int) -> PagedRequests:
        starts, row_counts = self._starts.device, self._row_counts.device
        return PagedRequests(starts, row_counts, self._lengths.device, self._pages.device, page_size, most_rows)


class PrefillStep(Generic[ResultT]):
    """Put numbers and rows in, then compute. Rows that fill it up repeat the first one and are kept where nobody
    reads."""

    def __init__(
        self,
        shape: tuple[int, ...],
        rows: Tensor,
        compute: PrefillCompute[ResultT],
        store: PagedKeyValues,
        graphs: Graphs,
    ) -> None:
        """rows (rows, width): what it computes, written before."""
        self._shape, self._store, self.rows = _Shape(*shape), store, rows
        self._block = block = InputBlock(graphs.device)
        room, requests = self._shape.rows, self._shape.singles + self._shape.chunks
        self._slots, self._owners = block.field(np.int64, room), block.field(np.int64, room)
        self._token_ids, self._positions = block.field(np.int64, room), block.field(np.float32, 3, room)
        self._in_sight = block.field(np.int32, room)
        self._sampled, self._unknown = block.field(np.int64, requests), block.field(np.int64, requests)
        self._singles = _Requests(block, self._shape.singles, self._shape.pages)
        self._chunks = _Requests(block, self._shape.chunks, self._shape.pages)
        block.seal()
        nobody = PackedRows(0, 1, [store.spare_slot // store.page_size])
        self.put([nobody], RowNumbers(np.zeros(1, np.int64), np.zeros((3, 1), np.float32), [0]))
        tables, positions = self._tables(), self._positions.device
        self._compute = graphs.captured(lambda: compute(rows, positions, PrefillBatch(tables, store)))

    def put(self, requests: Sequence[PackedRows], numbers: RowNumbers) -> None:
        """requests: in the order in which their rows are packed, and no more than there is room for."""
        self._block.begin()
        starts = np.cumsum([0, *(each.row_count for each in requests)]).tolist()
        placed = list(zip(requests, starts, strict=False))
        singles = [each for each in placed if each[0].row_count == 1]
        chunks = [each for each in placed if each[0].row_count > 1]
        # With neither a chunk nor a row to spare, every single's place is taken.
        nobodys_start = chunks[0][1] if chunks else min(starts[-1], self._shape.rows - 1)
        self._singles.write(singles, nobodys_start, self._store.page_size)
        self._chunks.write(chunks, 0, self._store.page_size)
        for owner, (rows, start) in enumerate(singles):
            self._write_rows(rows, start, owner)
        for owner, (rows, start) in enumerate(chunks, self._shape.singles):
            self._write_rows(rows, start, owner)
        self._write_numbers(numbers)
        self._fill_up(starts[-1])
        self._block.send()

    def fill(self, rows: Tensor) -> None:
        """rows (n, width): those of the requests, for whom does not write into `rows` himself."""
        self.rows.narrow(0, 0, len(rows)).copy_(rows)
        self.rows.narrow(0, len(rows), len(self.rows) - len(rows)).copy_(rows.narrow(0, 0, 1))

    def compute(self) -> ResultT:
        """As long as there is room, the first rows those of the requests, and valid until the next time. Waits for
        nothing."""
        return self._compute()

    @property
    def slots(self) -> Tensor:
        """Where each row is kept, (room)."""
        return self._slots.device

    @property
    def token_ids(self) -> Tensor:
        """int64 (room)"""
        return self._token_ids.device

    def sampled(self, count: int) -> Tensor:
        """int64 (count): so many as were put in."""
        return self._sampled.device.narrow(0, 0, count)

    def unknown(self, count: int) -> Tensor:
        return self._unknown.device.narrow(0, 0, count)

    def _tables(self) -> PrefillTables:
        size = self._store.page_size
        return PrefillTables(
            self._slots.device,
            self._owners.device,
            self._in_sight.device,
            self._singles.on_device(size, most_rows=1),
            self._chunks.on_device(size, most_rows=max(2, self._shape.rows)),
        )

    def _write_rows(self, rows: PackedRows, start: int, owner: int) -> None:
        part, size = slice(start, start + rows.row_count), self._store.page_size
        new = np.arange(rows.first_row, rows.stop_row)
        self._slots.host[part] = np.asarray(rows.pages)[new // size] * size + new % size
        self._owners.host[part], self._in_sight.host[part] = owner, new + 1

    def _write_numbers(self, numbers: RowNumbers) -> None:
        count = len(numbers.token_ids)
        self._token_ids.host[:count], self._positions.host[:, :count] = numbers.token_ids, numbers.positions
        for field, places in ((self._sampled, numbers.sampled), (self._unknown, numbers.unknown)):
            field.host[: len(places)] = places

    def _fill_up(self, count: int) -> None:
        """Stand-ins ask for hardly any expert that the first row does not."""
        self._slots.host[count:] = self._store.spare_slot
        repeated: tuple[Field[np.int64] | Field[np.int32], ...] = (self._token_ids, self._owners, self._in_sight)
        for field in repeated:
            field.host[count:] = field.host[0]
        self._positions.host[:, count:] = self._positions.host[:, :1]


class PrefillSteps(Generic[ResultT]):
    """The ladder of them. like (width): one row. They share the memory of their rows: one computes at a time."""

    def __init__(
        self,
        compute: PrefillCompute[ResultT],
        like: Tensor,
        store: PagedKeyValues,
        limits: PrefillLimits,
        graphs: Graphs,
    ) -> None:
        self._page_size = store.page_size
        rows = like.new_zeros(limits.rows, *like.shape)

        def make(shape: tuple[int, ...]) -> PrefillStep[ResultT]:
            return PrefillStep(shape, rows.narrow(0, 0, shape[0]), compute, store, graphs)

        self._ladder: Ladder[PrefillStep[ResultT]] = Ladder(_shapes(limits, store), make)

    def fitting(self, requests: Sequence[PackedRows]) -> PrefillStep[ResultT] | None:
        """None when they need more room than any step has."""
        counts = [each.row_count for each in requests]
        singles, longest = counts.count(1), max(each.stop_row for each in requests)
        return self._ladder.fitting(sum(counts), singles, len(counts) - singles, -(-longest // self._page_size))


def _shapes(limits: PrefillLimits, store: PagedKeyValues) -> list[tuple[int, ...]]:
    row_counts = doubling(limits.rows, min(_LEAST_ROWS, limits.rows))
    return [
        _Shape(rows, min(limits.requests, rows), min(limits.requests, max(_LEAST_CHUNKS, rows // _ROWS_A_CHUNK)), pages)
        for rows, pages in _rooms(row_counts, limits.context_rows, store)
    ]


def _rooms(row_counts: list[int], context_rows: int, store: PagedKeyValues) -> Iterable[tuple[int, int]]:
    """(rows, pages that each may see). Where pages are read as they lie, any context is only a longer table; a GPU that
    gathers has none, because a context for every row costs it more than the launches that a graph spares."""
    if store.kernels.attention is not None:
        return [(rows, -(-context_rows // store.page_size)) for rows in row_counts]
    return [] if store.keys.is_cuda else rooms(row_counts, context_rows, store)
