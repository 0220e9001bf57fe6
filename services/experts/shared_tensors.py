"""The tensors of a trunk's calls in memory that it shares: looked at where it says, and nowhere beyond the memory."""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.errors import InvalidInput
from antiphon.v1.expert_service_pb2 import SharedRows
from antiphon.wire.expert_links.shared_memory import ALIGNMENT

SizedT = TypeVar("SizedT", Tensor, NDArray[Any])


@dataclass(frozen=True, slots=True)
class Views:
    """Each from its offset to the memory's end."""

    # As many rows as there is room for, (rows, width).
    hidden: Tensor
    # Those of the pairs are int32.
    pair_rows: NDArray[Any]
    pair_experts: NDArray[Any]
    weights: Tensor
    # Of the result, and the same place as float32.
    weighted: Tensor
    sums: Tensor


class SharedTensors:
    """Made anew only when the trunk puts them elsewhere, which ours never does: a call would spend more time on them
    than on its way."""

    def __init__(self, memory: Tensor, width: int, dtype: torch.dtype) -> None:
        """memory: uint8."""
        self._memory, self._width, self._dtype = memory, width, dtype
        self._made: tuple[tuple[int, ...], Views] | None = None

    def at(self, place: SharedRows) -> Views:
        """Raises InvalidInput for an offset outside the memory or between its cache lines."""
        offsets = (
            place.hidden_offset,
            place.pair_rows_offset,
            place.pair_experts_offset,
            place.weights_offset,
            place.result_offset,
        )
        if self._made is None or self._made[0] != offsets:
            self._made = offsets, self._views(*offsets)
        return self._made[1]

    def _views(self, hidden: int, pair_rows: int, pair_experts: int, weights: int, result: int) -> Views:
        return Views(
            hidden=self._rows(hidden, self._dtype),
            pair_rows=self._from(pair_rows, torch.int32).numpy(),
            pair_experts=self._from(pair_experts, torch.int32).numpy(),
            weights=self._from(weights, self._dtype),
            weighted=self._rows(result, self._dtype),
            sums=self._rows(result, torch.float32),
        )

    def _rows(self, offset: int, dtype: torch.dtype) -> Tensor:
        elements = self._from(offset, dtype)
        return elements[: len(elements) // self._width * self._width].view(-1, self._width)

    def _from(self, offset: int, dtype: torch.dtype) -> Tensor:
        if not 0 <= offset < len(self._memory) or offset % ALIGNMENT:
            raise InvalidInput(
                f"Expected offsets that are multiples of {ALIGNMENT} within {len(self._memory)} bytes of shared "
                f"memory; came {offset}."
            )
        rest = self._memory[offset:]
        return rest[: len(rest) // dtype.itemsize * dtype.itemsize].view(dtype)


def first(count: int, view: SizedT) -> SizedT:
    """Raises InvalidInput when there are fewer."""
    if count > len(view):
        raise InvalidInput(f"Expected {count} rows or pairs within the shared memory; {len(view)} fit at their offset.")
    return view[:count]
