"""How many turns this gateway answers at once: one more is refused, and when it stops, every further one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from antiphon.errors import AtCapacity, Unavailable
from antiphon.telemetry.metrics import Metrics
from services.gateway.config import GatewaySettings


class TurnGate:
    def __init__(self, settings: GatewaySettings, metrics: Metrics) -> None:
        self._limit, self._retry_after_seconds = settings.concurrent_turns, settings.retry_after_seconds
        self._metrics = metrics
        self._last_is_over = asyncio.Event()
        self.turns = 0
        self.is_closed = False

    def require_room(self) -> None:
        """Raises what `turn` would raise now."""
        if self.is_closed:
            raise Unavailable("This server is stopping. Send the request again, to another one.")
        if self.turns >= self._limit:
            raise AtCapacity(
                f"The server answers {self._limit} requests at once and is full. Try again in a moment.",
                retry_after_seconds=self._retry_after_seconds,
            )

    @contextmanager
    def turn(self) -> Iterator[None]:
        self.require_room()
        self.turns += 1
        self._metrics.turns_active.inc()
        try:
            yield
        finally:
            self.turns -= 1
            self._metrics.turns_active.dec()
            if self.is_closed and not self.turns:
                self._last_is_over.set()

    async def close(self, drain_seconds: float) -> None:
        """Lets nobody in any more; returns when the last turn is over, or after `drain_seconds`."""
        self.is_closed = True
        if self.turns:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._last_is_over.wait(), drain_seconds)
