"""Frames of one speech that have come and wait to be decoded: bounded, in order, handed out in groups."""

import asyncio
import math
import time
from collections import deque
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray


class FrameInbox:
    """One task puts, another takes; a full inbox holds the first back."""

    def __init__(self, waiting_frames: int) -> None:
        self._room = waiting_frames
        self._parts: deque[NDArray[np.int16]] = deque()
        self._waiting = 0
        self._ended = False
        self._failure: Exception | None = None
        self._changed = asyncio.Condition()

    async def put(self, codes: NDArray[np.int16]) -> None:
        """codes (frames, quantizers). Waits until the frames before them leave some room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._waiting < self._room)
            self._parts.append(codes)
            self._waiting += len(codes)
            self._changed.notify_all()

    async def end(self, failure: Exception | None = None) -> None:
        """No more frames come; a failure overtakes those that wait."""
        async with self._changed:
            self._ended, self._failure = True, failure
            self._changed.notify_all()

    async def take(self, most: int, *, fills_until: float = -math.inf) -> NDArray[np.int16] | None:
        """The next 1 to `most` frames that wait, once there are any; None after the last. Raises the failure.

        Before `fills_until`, of time.monotonic(), it waits for `most`, or for the last."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._parts) or self._ended)
            await self._fill(min(most, self._room), fills_until - time.monotonic())
            if self._failure is not None:
                raise self._failure
            if not self._parts:
                return None
            taken = self._taken(most)
            self._waiting -= len(taken)
            self._changed.notify_all()
            return taken

    async def _fill(self, frames: int, seconds: float) -> None:
        """Under the lock."""
        if seconds <= 0:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait_for(lambda: self._waiting >= frames or self._ended)

    def _taken(self, most: int) -> NDArray[np.int16]:
        parts: list[NDArray[np.int16]] = []
        while self._parts and most > 0:
            part = self._parts.popleft()
            if len(part) > most:
                self._parts.appendleft(part[most:])
                part = part[:most]
            parts.append(part)
            most -= len(part)
        return np.concatenate(parts)
