"""How an answer leaves over HTTP while its client may hang up: everything behind it is closed at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from antiphon.errors import AntiphonError, Unavailable
from services.gateway.http.error_envelope import envelope_of, log_defect, status_of

T = TypeVar("T")

HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    # nginx and others would hold the stream back until it ends.
    "x-accel-buffering": "no",
}
# Milliseconds after which clients that reconnect by themselves should.
_RETRY: Final = b"retry: 100\n"


class ClientDisconnectedError(Exception):
    """The client hung up; there is nobody left to answer."""


async def until_disconnected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up. The request's body must have been read."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnectedError
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.wait({working, watching})


async def _disconnect(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


@dataclass(frozen=True, slots=True)
class Stop:
    """Ends a stream before its events do."""

    happened: asyncio.Event
    error: AntiphonError


class EventFeed(Generic[T]):
    """Events, and a None whenever none came for `idle_seconds`; or the error of the first stop that happens."""

    def __init__(self, events: AsyncIterator[T], idle_seconds: float, stops: Sequence[Stop] = ()) -> None:
        self._events, self._idle_seconds = events, idle_seconds
        self._coming: asyncio.Future[T] | None = None
        self._stops = {asyncio.create_task(stop.happened.wait()): stop.error for stop in stops}

    async def first(self) -> None:
        """Returns when the first event is there, or after `idle_seconds`. Raises what came instead of it."""
        coming = await self._wait()
        if coming is not None:
            coming.result()

    async def all(self) -> AsyncGenerator[T | None, None]:
        while True:
            coming = await self._wait()
            if coming is None:
                yield None
                continue
            self._coming = None
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            yield event

    async def aclose(self) -> None:
        waiting = self._waiting()
        for each in waiting:
            each.cancel()
        if waiting:
            await asyncio.wait(waiting)

    async def _wait(self) -> asyncio.Future[T] | None:
        if self._coming is None:
            self._coming = asyncio.ensure_future(anext(self._events))
        waiting = self._waiting()
        await asyncio.wait(waiting, timeout=self._idle_seconds, return_when=asyncio.FIRST_COMPLETED)
        for stop, error in self._stops.items():
            if stop.done():
                raise error
        return self._coming if self._coming.done() else None

    def _waiting(self) -> set[asyncio.Future[Any]]:
        return {*self._stops, *([] if self._coming is None else [self._coming])}


class EventStream(Response):
    """Server-sent events. `resources` are closed when the stream ends, in whatever way."""

    def __init__(self, frames: AsyncGenerator[bytes, None], resources: AsyncExitStack) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._frames, self._resources = frames, resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        async with self._resources:
            try:
                await until_disconnected(receive, self._send_all(send))
            except OSError as error:  # how servers of ASGI 2.4 tell a sender
                raise ClientDisconnectedError from error

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(_with_error_frame(self._frames)) as frames:
            async for frame in frames:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _with_error_frame(frames: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The status has been sent already, so a failure is told in the stream, which then ends without [DONE]."""
    try:
        async with aclosing(frames):
            async for frame in frames:
                yield frame
    except Exception as error:
        if not isinstance(error, AntiphonError) or status_of(error) >= 500:
            log_defect(error)
        hint = _RETRY if isinstance(error, Unavailable) else b""
        yield hint + b"data: " + envelope_of(error).model_dump_json(ensure_ascii=True).encode() + b"\n\n"
