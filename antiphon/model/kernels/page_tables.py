"""A step's requests as tables on the device, brought there by one copy that nobody waits for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.model.kernels.arguments import PackedRows, PagedRequests

# Tables begin at multiples of 16 bytes, for which kernels are compiled.
_ALIGNED = 4


@dataclass(frozen=True, slots=True)
class PageTables:
    # Where each new row is kept, int64 (rows).
    slots: Tensor
    # Those that decode and those with more new rows; neither is empty.
    requests: tuple[PagedRequests, ...]


def page_tables(rows: Sequence[PackedRows], page_size: int, device: torch.device) -> PageTables:
    """rows: the requests of the step, in the order in which their rows are packed."""
    starts = np.cumsum([0, *(each.row_count for each in rows)])
    placed = list(zip(rows, starts.tolist(), strict=False))
    groups = [[each for each in placed if (each[0].row_count == 1) == single] for single in (True, False)]
    # int64 among int32: torch indexes by it.
    arrays = [np.concatenate([_slots(each, page_size) for each in rows]).astype(np.int64).view(np.int32)]
    for group in filter(None, groups):
        arrays.extend(_tables(group))
    slots, *tables = _on_device(arrays, device)
    requests = [
        PagedRequests(starts, counts, lengths, pages, page_size, most_rows=max(each.row_count for each, _ in group))
        for (starts, counts, lengths, pages), group in zip(
            zip(*[iter(tables)] * 4, strict=True), filter(None, groups), strict=True
        )
    ]
    return PageTables(slots.view(torch.int64), tuple(requests))


def _slots(rows: PackedRows, page_size: int) -> NDArray[np.int64]:
    new = np.arange(rows.first_row, rows.stop_row)
    return np.asarray(rows.pages)[new // page_size] * page_size + new % page_size


def _tables(group: list[tuple[PackedRows, int]]) -> list[NDArray[np.int32]]:
    """Starts, row counts, lengths and pages of some requests, as PagedRequests describes them."""
    pages = np.zeros((len(group), max(len(rows.pages) for rows, _ in group)), np.int32)
    for table, (rows, _) in zip(pages, group, strict=True):
        table[: len(rows.pages)] = rows.pages
    columns = [(start, rows.row_count, rows.stop_row) for rows, start in group]
    return [*np.array(columns, np.int32).T, pages]


def _on_device(arrays: Sequence[NDArray[np.int32]], device: torch.device) -> list[Tensor]:
    """All of them in one piece of memory."""
    begins = np.cumsum([0, *(-(-array.size // _ALIGNED) * _ALIGNED for array in arrays)]).tolist()
    host = torch.empty(begins[-1], dtype=torch.int32, pin_memory=device.type == "cuda")
    for array, begin in zip(arrays, begins, strict=False):
        host[begin : begin + array.size].numpy()[:] = array.ravel()
    there = host.to(device, non_blocking=True)
    return [there[begin : begin + array.size].view(array.shape) for array, begin in zip(arrays, begins, strict=False)]
