"""An async context manager kept open on an event loop in a thread of its own, for plain tests to use what it gives."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

OpenedT = TypeVar("OpenedT")
ResultT = TypeVar("ResultT")

PATIENCE_SECONDS = 90.0


class EventLoopThread(Generic[OpenedT]):
    """`with EventLoopThread(make) as thread:` opens `make()` and gives its value as `thread.opened`."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[OpenedT]]) -> None:
        self.opened: OpenedT
        self._make = make
        self._loop: asyncio.AbstractEventLoop
        self._leave: asyncio.Event
        self._is_ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="event loop of a test", daemon=True)

    def __enter__(self) -> "EventLoopThread[OpenedT]":
        self._thread.start()
        assert self._is_ready.wait(PATIENCE_SECONDS), "it did not open in time"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "it did not close in time"
        if self._failure is not None:
            raise self._failure

    def run(self, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._keep_open())
        except BaseException as error:
            self._failure = error
            self._is_ready.set()

    async def _keep_open(self) -> None:
        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        async with self._make() as self.opened:
            self._is_ready.set()
            await self._leave.wait()
