"""What a layer's pairs give, put together from parts that come in any order."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.errors import InternalError
from antiphon.experts.calls import ExpertResult


class LayerResult(Protocol):
    def add(self, places: NDArray[np.int64], rows: NDArray[np.int64], part: Tensor) -> None:
        """places (pairs): which of all pairs were computed, each once; rows: of which rows, ascending and each once.
        part: as a shard gives it, on the CPU."""
        ...

    def sum(self) -> Tensor:
        """(rows, width). A pair that is missing is an error."""
        ...


def layer_result(kind: ExpertResult, hidden: Tensor, per_row: int) -> LayerResult:
    """per_row: pairs of each row."""
    return SlotRows(hidden, per_row) if kind is ExpertResult.PAIRS else RowSums(hidden, per_row)


class SlotRows:
    """Summed in slot order, whoever computed them."""

    def __init__(self, hidden: Tensor, per_row: int) -> None:
        self._hidden, self._per_row, self._pairs = hidden, per_row, 0
        self._slots: Tensor | None = None

    def add(self, places: NDArray[np.int64], rows: NDArray[np.int64], part: Tensor) -> None:  # noqa: ARG002
        self._pairs += len(places)
        part = part.to(self._hidden.device)
        if len(places) == len(self._hidden) * self._per_row:
            self._slots = part
            return
        if self._slots is None:
            self._slots = self._hidden.new_empty(len(self._hidden) * self._per_row, self._hidden.shape[1])
        self._slots.index_copy_(0, torch.from_numpy(places).to(part.device), part)

    def sum(self) -> Tensor:
        """Before the next call, with whose rows a part may be overwritten."""
        _require_all(self._pairs, len(self._hidden) * self._per_row)
        slots = self._hidden if self._slots is None else self._slots
        return slots.view(len(self._hidden), self._per_row, -1).sum(1)


class RowSums:
    """Summed in float32, in the order in which they come."""

    def __init__(self, hidden: Tensor, per_row: int) -> None:
        self._per_row, self._pairs, self._type = per_row, 0, hidden.dtype
        self._sums = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)

    def add(self, places: NDArray[np.int64], rows: NDArray[np.int64], part: Tensor) -> None:
        sums = self._sums
        if len(rows) == len(sums):
            sums.add_(part.to(sums.device))
        else:
            sums.index_add_(0, torch.from_numpy(rows).to(sums.device), part.to(sums.device))
        self._pairs += len(places)

    def sum(self) -> Tensor:
        _require_all(self._pairs, len(self._sums) * self._per_row)
        return self._sums.to(self._type)


def _require_all(pairs: int, expected: int) -> None:
    if pairs != expected:
        raise InternalError(f"Expected {expected} pairs of rows and experts to be computed; {pairs} were.")
