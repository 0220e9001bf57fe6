"""Steps of fixed shape: inputs that one copy fills, and a ladder of such steps, each captured as a CUDA graph.

A step that is replayed costs the host one call instead of a thousand kernel launches. On a CPU the same steps are
called plainly, so that what a graph would hold can be compared with the path of free shapes.
"""

import math
import threading
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ResultT = TypeVar("ResultT")
StepT = TypeVar("StepT")
NumberT = TypeVar("NumberT", np.int32, np.int64, np.float32)

# Beginning a capture waits for the whole device, which another capture does not survive.
_CAPTURING: Final = threading.Lock()
# Calls before a capture: they choose kernels and take workspaces, which a graph must find in place.
_WARM_UP_CALLS: Final = 2
# What a field's first byte is a multiple of; enough for every type and for wide loads.
_ALIGNMENT_BYTES: Final = 16


class Graphs:
    """The graphs of one thread: they share memory, because no two of them ever run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def captured(self, compute: Callable[[], ResultT]) -> Callable[[], ResultT]:
        """`compute` reads tensors that stay where they are, waits for no value and leaves what it kept no worse when it
        is called twice. What it returned here is what every call of the result returns: the next call overwrites it."""
        if self._pool is None:
            return compute
        with _CAPTURING, torch.inference_mode():
            stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_CALLS):
                    compute()
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            # Other stages compute on threads of their own meanwhile: what they may do is not this capture's affair.
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                result = compute()
        return _Replay(graph, result)


class _Replay(Generic[ResultT]):
    def __init__(self, graph: torch.cuda.CUDAGraph, result: ResultT) -> None:
        self._graph, self._result = graph, result

    def __call__(self) -> ResultT:
        self._graph.replay()
        return self._result


class Ladder(Generic[StepT]):
    """One step a shape. A shape is some sizes, such as (requests, pages)."""

    def __init__(self, shapes: Iterable[tuple[int, ...]], make: Callable[[tuple[int, ...]], StepT]) -> None:
        """The largest is made first: the others find their memory in what it has let go of."""
        largest_first = sorted(set(shapes), reverse=True)
        made = [(shape, make(shape)) for shape in largest_first]
        self._rungs = sorted(made, key=lambda rung: rung[0])

    def fitting(self, *sizes: int) -> StepT | None:
        """The least step in which these sizes have room; None when there is none."""
        for shape, step in self._rungs:
            if all(size <= room for size, room in zip(sizes, shape, strict=True)):
                return step
        return None


def doubling(most: int, first: int = 1, factor: int = 2) -> list[int]:
    """first, first * factor, ... and `most` itself, which ends it."""
    sizes = []
    while first < most:
        sizes.append(first)
        first *= factor
    return [*sizes, most]


class Field(Generic[NumberT]):
    """One array of a block: written on the host, read on the device."""

    def __init__(self, block: "InputBlock", start_byte: int, shape: tuple[int, ...], kind: type[NumberT]) -> None:
        self._block, self._shape = block, shape
        self._kind: np.dtype[NumberT] = np.dtype(kind)
        self._bytes: slice[int, int, None] = slice(start_byte, start_byte + self._kind.itemsize * math.prod(shape))

    @property
    def host(self) -> NDArray[NumberT]:
        """Valid until the block is sent."""
        numbers: NDArray[NumberT] = self._block.host[self._bytes].numpy().view(self._kind).reshape(self._shape)
        return numbers

    @property
    def device(self) -> Tensor:
        """Always the same memory."""
        kind: torch.dtype = getattr(torch, self._kind.name)
        return self._block.device_bytes[self._bytes].view(kind).view(self._shape)


class InputBlock:
    """The small inputs of a step side by side, so that one copy brings them all. Declare its fields, then `seal` it;
    before each step write their host side after `begin`, and `send`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._size = 0
        self.host = self.device_bytes = torch.empty(0, dtype=torch.uint8)

    def field(self, kind: type[NumberT], *shape: int) -> Field[NumberT]:
        start = self._size
        size = np.dtype(kind).itemsize * math.prod(shape)
        self._size += -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        return Field(self, start, shape, kind)

    def seal(self) -> None:
        self.device_bytes = torch.zeros(self._size, dtype=torch.uint8, device=self._device)
        self.host = self.device_bytes if self._device.type == "cpu" else self.host

    def begin(self) -> None:
        """Takes a host side that no copy under way reads: torch keeps pinned memory until what was sent has arrived."""
        if self._device.type != "cpu":
            self.host = torch.empty(self._size, dtype=torch.uint8, pin_memory=True)

    def send(self) -> None:
        """Does not wait for the copy."""
        if self._device.type != "cpu":
            self.device_bytes.copy_(self.host, non_blocking=True)
