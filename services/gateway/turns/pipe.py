"""A bounded queue between the tasks of one turn: closing it ends its reader, abandoning it frees its writers."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Pipe(Generic[T]):
    """An async iterator of what was sent. Its reader may go early: what is sent after that is dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: deque[T] = deque()
        self._error: Exception | None = None
        self._is_closed = False
        self._is_abandoned = False
        self._changed = asyncio.Event()

    async def send(self, item: T, *, limit: int | None = None) -> None:
        """Waits while the pipe is full; `limit` is for large items, of which fewer may wait."""
        while len(self._items) >= (limit or self._limit) and not self._is_abandoned:
            await self._change()
        if not self._is_abandoned:
            self._items.append(item)
            self._changed.set()

    def close(self, error: Exception | None = None) -> None:
        """The reader gets what is still inside, then the end, or `error`."""
        self._is_closed, self._error = True, error
        self._changed.set()

    def abandon(self) -> None:
        self._is_abandoned = True
        self._items.clear()
        self._changed.set()

    async def aclose(self) -> None:
        """How a reader that treats it as a generator leaves."""
        self.abandon()

    def __aiter__(self) -> "Pipe[T]":
        return self

    async def __anext__(self) -> T:
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._is_closed or self._is_abandoned:
                raise StopAsyncIteration
            await self._change()
        self._changed.set()
        return self._items.popleft()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
