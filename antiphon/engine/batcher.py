"""Work without a sequence (encoders, codec): a bounded queue in front of a worker thread, most urgent first.

A job whose caller has hung up, or whose deadline has passed, is dropped before it runs.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


class Batcher(Generic[JobT, ResultT]):
    """compute: called on the worker thread with 1 to `max_batch` jobs; gives one result a job, in order."""

    def __init__(
        self,
        compute: Callable[[list[JobT]], list[ResultT]],
        *,
        max_waiting: int,
        max_batch: int = 1,
        name: str = "batcher",
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    async def run(self, job: JobT, *, deadline: float | None = None) -> ResultT:
        """Waits for its result. deadline: of time.monotonic(), earliest first; jobs without one come last, in order.

        Raises AtCapacity when the queue is full, DeadlineExceeded, Unavailable when stopping, or what `compute` raised."""
        raise NotImplementedError

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Refuses new jobs, lets waiting ones finish for so long, fails the rest with Unavailable, ends the thread."""
        raise NotImplementedError
