"""Notices that a call has stopped moving although its stage owes an answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from antiphon.errors import Unavailable
from antiphon.telemetry.names import StageName


class Vigil:
    """Over one attempt. Slow is not dead: after `stall_seconds` of silence `is_lost` decides, and is asked again after
    as many more."""

    def __init__(
        self, stage: StageName, owes: Callable[[], bool], is_lost: Callable[[], Awaitable[bool]], stall_seconds: float
    ) -> None:
        self._stage, self._owes, self._is_lost, self._stall_seconds = stage, owes, is_lost, stall_seconds
        self._moved_seconds = time.monotonic()
        self._is_awaited = self._is_writing = False

    @contextmanager
    def awaiting(self) -> Iterator[None]:
        """The caller wants the next answer. Where he does not, silence is his."""
        self._moved_seconds, self._is_awaited = time.monotonic(), True
        try:
            yield
        finally:
            self._is_awaited = False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A request waits for the transport."""
        self._is_writing = True
        try:
            yield
        finally:
            self._is_writing = False

    async def keep(self) -> None:
        """Raises Unavailable once the stage is lost."""
        while True:
            await asyncio.sleep(max(self._moved_seconds + self._stall_seconds - time.monotonic(), 0.01))
            if time.monotonic() - self._moved_seconds < self._stall_seconds:
                continue
            if self._is_awaited and (self._is_writing or self._owes()) and await self._is_lost():
                raise Unavailable(f"The {self._stage} stage has fallen silent. Try again in a moment.")
            self._moved_seconds = time.monotonic()
