"""One request as its reader sees it: an async iterator of outputs, fed by the decoder's thread."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from antiphon.engine.sequence import FinishReason, Timings
from antiphon.errors import AntiphonError

OutputT = TypeVar("OutputT")


@dataclass(frozen=True, slots=True)
class End:
    """Why no more outputs come: finished, failed, or (neither) cancelled."""

    finish_reason: FinishReason | None = None
    error: AntiphonError | None = None


class Line(Protocol):
    """The way from a reader to its sequence in the decoder."""

    def extend(self, available_rows: int) -> None: ...

    def take(self) -> None:
        """One output has been read."""
        ...

    def cancel(self) -> None: ...

    def timings(self) -> Timings: ...

    def cached_rows(self) -> int: ...


class Generation(Generic[OutputT]):
    """One reader, on the event loop that submitted it. Ends when the request has finished or was cancelled; raises what
    made it fail."""

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop) -> None:
        self._line = line
        self._loop = loop
        self._values: deque[OutputT] = deque()
        self._end: End | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> AsyncIterator[OutputT]:
        return self

    async def __anext__(self) -> OutputT:
        while not self._values and self._end is None:
            self._waiter = self._loop.create_future()
            await self._waiter
        if self._values:
            self._line.take()
            return self._values.popleft()
        if self._end is not None and self._end.error is not None:
            raise self._end.error
        raise StopAsyncIteration

    @property
    def finish_reason(self) -> FinishReason | None:
        """Known after the last output; None when it was cancelled or failed."""
        return None if self._end is None else self._end.finish_reason

    @property
    def timings(self) -> Timings:
        """So far, or of the whole once it has ended."""
        return self._line.timings()

    @property
    def cached_rows(self) -> int:
        """Rows that were taken over from earlier requests; of the prompt alone once the first output is there."""
        return self._line.cached_rows()

    def extend(self, available_rows: int) -> None:
        """More input exists. Put it into the request first: the engine's thread reads rows below `available_rows`."""
        self._line.extend(available_rows)

    def cancel(self) -> None:
        """Frees its pages at once; outputs not yet read are dropped. Harmless after the last one."""
        if self._values:
            self._values.clear()
            self._end = End()
        self._line.cancel()
        self.receive((), End())

    async def aclose(self) -> None:
        """The same, for contextlib.aclosing."""
        self.cancel()

    def receive(self, values: tuple[OutputT, ...], end: End | None) -> None:
        """For the decoder, on the reader's event loop."""
        if self._end is not None:
            return
        self._values.extend(values)
        self._end = end
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
