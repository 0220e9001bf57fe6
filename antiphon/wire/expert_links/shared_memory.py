"""Memory that a trunk and a shard have both mapped: a file without a name, whose descriptor travels over their socket.

It is sealed at its size. Otherwise whoever holds the descriptor could cut it off, and the other one's next access would
end its process.
"""

import fcntl
import math
import mmap
import os
import sys
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import torch
from torch import Tensor

from antiphon.errors import InvalidInput, TooLarge, Unavailable
from antiphon.experts.calls import ExpertCall, ExpertResult

# Every tensor begins at a multiple of it: a cache line, and what keeps float32 products the same everywhere.
ALIGNMENT: Final = 64
_SEALS: Final = 0 if sys.platform != "linux" else fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create(byte_count: int) -> int:
    """A descriptor of sealed memory, to be closed by the caller. Raises Unavailable where there is no such thing."""
    if sys.platform != "linux":
        raise Unavailable("Memory can be shared with an expert shard on Linux only; call it over gRPC.")
    descriptor = os.memfd_create("antiphon-experts", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, byte_count)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def require_sealed(descriptor: int, byte_count: int, *, most_bytes: int) -> None:
    """Of memory that somebody else made. Raises InvalidInput or TooLarge."""
    if not 0 < byte_count <= most_bytes:
        raise TooLarge(f"memory_bytes: expected 1 to {most_bytes}; came {byte_count}.", param="memory_bytes")
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise InvalidInput("Expected memory made by memfd_create; came another kind of file.") from None
    if not seals & fcntl.F_SEAL_SHRINK:
        raise InvalidInput("Expected memory with F_SEAL_SHRINK, so that nobody can cut it off; came unsealed memory.")
    size = os.fstat(descriptor).st_size
    if size < byte_count:
        raise InvalidInput(f"memory_bytes: expected what the file has, {size}; came {byte_count}.")


def mapped(descriptor: int, byte_count: int) -> Tensor:
    """uint8 (byte_count); unmapped when the last view of it has gone."""
    return torch.frombuffer(mmap.mmap(descriptor, byte_count), dtype=torch.uint8)


@dataclass(frozen=True, slots=True)
class MemoryLayout:
    """Where a trunk keeps the tensors of a call."""

    rows: int
    pairs: int
    width: int
    dtype: torch.dtype

    @property
    def offsets(self) -> tuple[int, ...]:
        """In bytes: of the hidden rows, the pairs' rows, experts and weights, the result; and the end."""
        item_bytes = self.dtype.itemsize
        sizes = (self.rows * self.width * item_bytes, 4 * self.pairs, 4 * self.pairs, self.pairs * item_bytes)
        result_bytes = max(self.pairs * item_bytes, self.rows * 4) * self.width
        padded = (-(-size // ALIGNMENT) * ALIGNMENT for size in (*sizes, result_bytes))
        return tuple(accumulate(padded, initial=0))

    @property
    def byte_count(self) -> int:
        return self.offsets[-1]


class CallMemory:
    """The tensors of a trunk's calls in shared memory, uint8 (bytes)."""

    def __init__(self, memory: Tensor, layout: MemoryLayout) -> None:
        def view(place: int, dtype: torch.dtype, *shape: int) -> Tensor:
            offset = layout.offsets[place]
            return memory[offset : offset + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)

        self._hidden = view(0, layout.dtype, layout.rows, layout.width)
        self._pair_rows = view(1, torch.int32, layout.pairs)
        self._pair_experts = view(2, torch.int32, layout.pairs)
        self._weights = view(3, layout.dtype, layout.pairs)
        self._weighted = view(4, layout.dtype, layout.pairs, layout.width)
        self._sums = view(4, torch.float32, layout.rows, layout.width)

    def write(self, call: ExpertCall) -> Tensor:
        """Gives the place of the result: (pairs, width), or float32 (rows, width). Raises TooLarge."""
        rows, pairs = len(call.hidden), len(call.pair_rows)
        if rows > len(self._hidden) or pairs > len(self._pair_rows):
            raise TooLarge(
                f"An expert call: expected at most {len(self._hidden)} rows and {len(self._pair_rows)} pairs; came "
                f"{rows} and {pairs}. Take smaller steps, or open links with greater limits."
            )
        self._hidden[:rows].copy_(call.hidden)
        self._pair_rows[:pairs].copy_(call.pair_rows)
        self._pair_experts[:pairs].copy_(call.pair_experts)
        self._weights[:pairs].copy_(call.weights)
        return self._weighted[:pairs] if call.result is ExpertResult.PAIRS else self._sums[:rows]
