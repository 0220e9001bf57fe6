"""A request stream that can be read again from its start for as long as nobody has answered it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, slots=True)
class _SourceEnd:
    failure: Exception | None


class ReplayableRequests(Generic[MessageT]):
    """Keeps what was read until `forget`, at most `max_kept_bytes` of it; beyond that it cannot be read again.

    One task reads the source from its first message to its last, so that giving up a reader loses nothing and the
    source never changes its task. It runs one message ahead.
    """

    def __init__(self, source: AsyncIterator[MessageT], *, max_kept_bytes: int) -> None:
        self._source = source
        self._kept: list[MessageT] | None = []
        self._room_bytes = max_kept_bytes
        self._next: asyncio.Queue[MessageT | _SourceEnd] = asyncio.Queue(maxsize=1)
        self._end: _SourceEnd | None = None
        self._feeder = asyncio.create_task(self._feed(), name="request source")

    @property
    def can_replay(self) -> bool:
        return self._kept is not None

    def forget(self) -> None:
        self._kept = None

    async def read(self) -> AsyncGenerator[MessageT, None]:
        """What was read before, then the rest; raises what the source raises. One reader at a time."""
        for message in tuple(self._kept or ()):
            yield message
        while self._end is None:
            following = await self._next.get()
            if isinstance(following, _SourceEnd):
                self._end = following
            else:
                self._keep(following)
                yield following
        if self._end.failure is not None:
            raise self._end.failure

    async def close(self) -> None:
        """Ends the source; a generator runs its cleanup before this returns."""
        self._feeder.cancel()
        await asyncio.gather(self._feeder, return_exceptions=True)
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()

    async def _feed(self) -> None:
        try:
            async for message in self._source:
                await self._next.put(message)
        except Exception as error:
            await self._next.put(_SourceEnd(error))
        else:
            await self._next.put(_SourceEnd(None))

    def _keep(self, message: MessageT) -> None:
        if self._kept is None:
            return
        self._room_bytes -= message.ByteSize()
        if self._room_bytes < 0:
            self._kept = None
        else:
            self._kept.append(message)
