"""What a client is still to be told: in order, bounded in bytes, written by one task."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from services.gateway.realtime.dialect.frames import Frame

SendText = Callable[[str], Awaitable[None]]
# False for what may not be told any more; may take a moment.
MaySend = Callable[[Frame], Awaitable[bool]]


class ClientStalledError(Exception):
    """The client has taken nothing for too long."""


class Outbox:
    """What belongs together is put in together, so that nothing comes between. Whoever makes more waits for room."""

    def __init__(self, most_bytes: int, unread_seconds: float) -> None:
        self._most_bytes, self._unread_seconds = most_bytes, unread_seconds
        self._frames: deque[Frame] = deque()
        self._byte_count = 0
        self._has_frames, self._has_room, self._is_empty = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._has_room.set()
        self._is_empty.set()

    def push(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._byte_count += frame.size_bytes
        self._has_frames.set()
        self._is_empty.clear()
        if self._byte_count > self._most_bytes:
            self._has_room.clear()

    async def room(self) -> None:
        await self._has_room.wait()

    async def flushed(self) -> None:
        await self._is_empty.wait()

    async def write(self, send: SendText, may_send: MaySend) -> None:
        """Until it is cancelled. Raises ClientStalledError."""
        while True:
            await self._has_frames.wait()
            frame = self._frames.popleft()
            if await may_send(frame):
                await self._send(frame, send)
            self._sent(frame)

    async def _send(self, frame: Frame, send: SendText) -> None:
        try:
            async with asyncio.timeout(self._unread_seconds):
                await send(frame.text)
        except TimeoutError:
            raise ClientStalledError from None

    def _sent(self, frame: Frame) -> None:
        self._byte_count -= frame.size_bytes
        if self._byte_count <= self._most_bytes:
            self._has_room.set()
        if not self._frames:
            self._has_frames.clear()
            self._is_empty.set()
