"""The requests of one call, kept so that another replica can be told them again."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from antiphon.wire.resumption import Resumption

MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, slots=True)
class RepeatableRequests(Generic[MessageT]):
    """Requests whose bulk (media, and rows of media) can be made again, so that not all of it has to be kept."""

    source: AsyncIterator[MessageT]
    # All of the bulk, from its beginning.
    bulk_again: Callable[[], AsyncGenerator[MessageT, None]]

    def __aiter__(self) -> AsyncIterator[MessageT]:
        return self.source

    async def __anext__(self) -> MessageT:
        return await anext(self.source)


@dataclass(frozen=True, slots=True)
class _SourceEnd:
    failure: Exception | None


class ReplayableRequests(Generic[MessageT]):
    """Keeps what was read, at most `max_kept_bytes` of it. Beyond that bulk is made again, where the source can; any
    other source cannot be told again.

    One task reads the source from its first message to its last, so that giving up a reader loses nothing and the
    source never changes its task. It runs one message ahead.
    """

    def __init__(
        self,
        source: AsyncIterator[MessageT] | RepeatableRequests[MessageT],
        resumption: Resumption[MessageT, Any],
        *,
        max_kept_bytes: int,
    ) -> None:
        self._source = source.source if isinstance(source, RepeatableRequests) else source
        self._bulk_again = source.bulk_again if isinstance(source, RepeatableRequests) else None
        self._resumption = resumption
        self._kept: list[MessageT] = []
        self._room_bytes = max_kept_bytes
        # Some of what was read is not kept; none of the bulk is then.
        self._lacks_bulk = self._lacks_others = False
        self._next: asyncio.Queue[MessageT | _SourceEnd] = asyncio.Queue(maxsize=1)
        self._end: _SourceEnd | None = None
        self._feeder = asyncio.create_task(self._feed(), name="request source")

    @property
    def can_replay(self) -> bool:
        return not self._lacks_others and (not self._lacks_bulk or self._bulk_again is not None)

    async def read(self) -> AsyncGenerator[MessageT, None]:
        """What was read before, as the resumption tells it, then the rest; raises what the source raises. One reader at
        a time."""
        makes_bulk = self._lacks_bulk
        async with aclosing(self._told_again()) as again:
            async for message in again:
                yield message
        while self._end is None:
            following = await self._next.get()
            if isinstance(following, _SourceEnd):
                self._end = following
                break
            self._keep(following)
            self._resumption.told(following)
            if not (makes_bulk and self._is_bulk(following)):
                yield following
        if self._end.failure is not None:
            raise self._end.failure

    async def close(self) -> None:
        """Ends the source; a generator runs its cleanup before this returns."""
        self._feeder.cancel()
        await asyncio.gather(self._feeder, return_exceptions=True)
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()

    async def _told_again(self) -> AsyncGenerator[MessageT, None]:
        """Bulk follows the start."""
        bulk_follows = self._lacks_bulk
        for message in self._resumption.told_again(tuple(self._kept)):
            yield message
            if bulk_follows and self._bulk_again is not None:
                bulk_follows = False
                async with aclosing(self._bulk_again()) as bulk:
                    async for part in bulk:
                        yield part

    async def _feed(self) -> None:
        try:
            async for message in self._source:
                await self._next.put(message)
        except Exception as error:
            await self._next.put(_SourceEnd(error))
        else:
            await self._next.put(_SourceEnd(None))

    def _is_bulk(self, message: MessageT) -> bool:
        return bool(message.WhichOneof("message") == self._resumption.bulk)

    def _keep(self, message: MessageT) -> None:
        is_bulk = self._is_bulk(message)
        if self._lacks_others or (is_bulk and self._lacks_bulk):
            return
        self._kept.append(message)
        self._room_bytes -= message.ByteSize()
        if self._room_bytes < 0:
            self._drop_bulk()
        if self._room_bytes < 0:
            self._lacks_others = True
            self._kept.clear()

    def _drop_bulk(self) -> None:
        bulk = [message for message in self._kept if self._is_bulk(message)]
        self._lacks_bulk = self._lacks_bulk or bool(bulk)
        self._kept = [message for message in self._kept if not self._is_bulk(message)]
        self._room_bytes += sum(message.ByteSize() for message in bulk)
