"""Where a model computes and in what type: what "auto" in a service's settings means."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from antiphon.errors import CheckpointError

DeviceName = Literal["auto", "cpu", "cuda"]
TypeName = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Placement:
    device: torch.device
    dtype: torch.dtype


def placement(device: DeviceName = "auto", dtype: TypeName = "auto") -> Placement:
    """auto takes the GPU if there is one; float32 on a CPU, bfloat16 on a GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("The settings ask for a CUDA device, but torch sees none. Set the device to auto or cpu.")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    narrow = dtype == "bfloat16" or (dtype == "auto" and on_gpu)
    return Placement(torch.device("cuda" if on_gpu else "cpu"), torch.bfloat16 if narrow else torch.float32)


def sent(values: NDArray[Any], device: torch.device) -> Tensor:
    """On the device, without waiting for the copy."""
    return sent_tensor(torch.from_numpy(values), device)


def sent_tensor(tensor: Tensor, device: torch.device) -> Tensor:
    """The same, from pinned memory, which torch keeps until it has been read."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def fetched(values: Tensor) -> Callable[[], Tensor]:
    """Begins to bring them to the host; the result waits until they are there."""
    if values.device.type == "cpu":
        return lambda: values
    arriving = values.to("cpu", non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()

    def wait() -> Tensor:
        arrived.synchronize()
        return arriving

    return wait


class Moment:
    """When the device gets here in its order; on a CPU, now. Waits for nothing."""

    def __init__(self, device: torch.device) -> None:
        self._seconds = time.perf_counter()
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record()

    def ms_until(self, later: "Moment") -> float:
        """Of one stream; both are over, as they are once what was computed between them has been fetched."""
        if self._event is None or later._event is None:
            return (later._seconds - self._seconds) * 1e3
        return float(self._event.elapsed_time(later._event))


def wait_for(device: torch.device) -> None:
    """Until all that was begun there is done: before what one thread has loaded is used on another's stream."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True, slots=True)
class OwnStream:
    """Computations in their own order beside those of other threads; the more urgent go first. Nothing on a CPU."""

    stream: torch.cuda.Stream | None

    @classmethod
    def on(cls, device: torch.device, *, urgency: int) -> "OwnStream":
        """urgency: 0 and up."""
        if device.type != "cuda":
            return cls(None)
        return cls(torch.cuda.Stream(device, priority=-urgency))  # type: ignore[no-untyped-call]

    def entered(self) -> AbstractContextManager[object]:
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)


def limit_cpu_threads() -> None:
    """For the whole process: one thread an operation, unless OMP_NUM_THREADS says otherwise. The stages' own threads
    share the cores; where operations are small, threads that wait for each other cost a frame ten times its time."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
