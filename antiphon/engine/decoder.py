"""The loop that turns requests into outputs: schedule, run, postprocess, on a thread of its own.

The asyncio side submits a sequence and reads its outputs; it never waits for a step. Outputs cross over once a step and event
loop, not once a token.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import SchedulerLimits
from antiphon.engine.sequence import ALL_ROWS, FinishReason, RequestT, Slice, Timings

OutputT = TypeVar("OutputT")
RunnerRequestT = TypeVar("RunnerRequestT", contravariant=True)
RunnerOutputT = TypeVar("RunnerOutputT", covariant=True)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[OutputT]):
    """What one slice gave: values for the reader, and whether the sequence ends with them."""

    values: tuple[OutputT, ...] = ()
    finish_reason: FinishReason | None = None


class Runner(Protocol[RequestT, OutputT]):
    """The model's side of the loop. Called on the decoder's thread only."""

    def run(self, slices: list[Slice[RequestT]]) -> list[Outcome[OutputT]]:
        """One outcome a slice, in order. A slice with `samples` samples; others may give values too. After a preemption
        rows run again from the first one: what was given once is not to be given twice."""
        ...

    def release(self, request: RequestT) -> None:
        """The request has ended, for whatever reason: called exactly once, no slice of it follows."""
        ...


@dataclass(frozen=True, slots=True)
class Submission(Generic[RequestT]):
    request: RequestT
    prompt_rows: int
    # Rows at the longest end: prompt_rows + the most outputs - 1.
    max_rows: int
    # Rows whose input exists already; see Generation.extend.
    available_rows: int = ALL_ROWS
    # Outputs that may wait for the reader before the sequence pauses.
    max_untaken: int = 64


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a decoder is."""

    running: int
    waiting: int
    pages_used: int
    page_count: int


class Generation(Generic[OutputT]):
    """One submitted request, read as an async iterator of its outputs (one reader, one event loop).

    The iterator ends when the sequence has finished or was cancelled, and raises what made it fail.
    """

    def __aiter__(self) -> AsyncIterator[OutputT]:
        return self

    async def __anext__(self) -> OutputT:
        raise NotImplementedError

    @property
    def finish_reason(self) -> FinishReason | None:
        """Known after the last output; None when it was cancelled or failed."""
        raise NotImplementedError

    @property
    def timings(self) -> Timings:
        """Complete after the last output."""
        raise NotImplementedError

    def extend(self, available_rows: int) -> None:
        """More input exists. Put it into the request first; the engine's thread reads rows below `available_rows` only."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Frees its pages at once; outputs that were not read are dropped. Harmless after the end."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """The same, for contextlib.aclosing."""
        self.cancel()


class Decoder(Generic[RequestT, OutputT]):
    def __init__(
        self, runner: Runner[RequestT, OutputT], limits: SchedulerLimits, pool: PagePool, *, name: str
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def submit(self, submission: Submission[RequestT]) -> Generation[OutputT]:
        """From a coroutine. Raises AtCapacity, ContextTooLong, or Unavailable when the decoder is stopping."""
        raise NotImplementedError

    def load(self) -> Load:
        raise NotImplementedError

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Refuses new work, lets live sequences finish for so long, fails the rest with Unavailable, ends the thread."""
        raise NotImplementedError
