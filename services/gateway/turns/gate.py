"""Who is let in: as many turns as the gateway may answer at once, and as the machine serves without making listeners
wait; when it stops, nobody."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from antiphon.errors import AtCapacity, Unavailable
from antiphon.telemetry.metrics import Metrics
from services.gateway.config import GatewaySettings
from services.gateway.turns.capacity import Capacity

_BEYOND_THE_LIMIT: Final = 1.25
_LATELY_SECONDS: Final = 5.0


class Listener(Protocol):
    def late_seconds(self, now: float) -> float:
        """For how long somebody has been waiting for sound that was due; now: of time.monotonic()."""
        ...


class TurnGate:
    def __init__(self, settings: GatewaySettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._capacity = Capacity(settings.concurrent_turns)
        self._listeners: set[Listener] = set()
        self._last_is_over = asyncio.Event()
        self._of_tenants: Counter[str] = Counter()
        self._left_at: dict[str, float] = {}
        self.turns = self._ahead = 0
        self.is_closed = False
        # Set when those that are still answered have had their time.
        self.cut = asyncio.Event()

    def require_room(self, tenant: str) -> None:
        """Raises what `turn` would raise now."""
        if self.is_closed:
            raise Unavailable("This server is stopping. Send the request again, to another one.")
        limit = self._most()
        if not self._has_place(tenant, limit):
            raise AtCapacity(
                f"The server answers {limit} requests at once and is full. Try again in a moment.",
                retry_after_seconds=self._settings.retry_after_seconds,
            )

    @contextmanager
    def turn(self, listener: Listener, tenant: str) -> Iterator[None]:
        self.require_room(tenant)
        self.turns += 1
        self._of_tenants[tenant] += 1
        self._listeners.add(listener)
        self._metrics.turns_active.inc()
        try:
            yield
        finally:
            self.turns -= 1
            self._of_tenants -= Counter([tenant])
            self._left_at[tenant] = time.monotonic()
            self._listeners.discard(listener)
            self._metrics.turns_active.dec()
            if self.is_closed and not self.turns:
                self._last_is_over.set()

    def has_room_ahead(self, share: float = 1.0) -> bool:
        """For work that nobody waits for yet: less than this share of the places is taken, such work counted."""
        return not self.is_closed and self.turns + self._ahead < share * self._most()

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Such work. It takes no place from whoever asks in earnest."""
        self._ahead += 1
        try:
            yield
        finally:
            self._ahead -= 1

    async def close(self, drain_seconds: float, cut_seconds: float = 1.0) -> None:
        """Lets nobody in any more; returns when the last turn is over, or after `drain_seconds` and the time in which
        streams say that they end."""
        self.is_closed = True
        await self._until_empty(drain_seconds)
        self.cut.set()
        await self._until_empty(cut_seconds)

    async def _until_empty(self, seconds: float) -> None:
        if self.turns:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._last_is_over.wait(), seconds)

    def _has_place(self, tenant: str, limit: int) -> bool:
        """Half of the places are for whoever asks; of the others each tenant has its share, and where others have taken
        that, somewhat more are let in for a while rather than a tenant kept out."""
        present = len({*self._of_tenants, *self._lately_here(), tenant})
        if present == 1:
            return self.turns < limit
        if self.turns < limit // 2:
            return True
        return self._of_tenants[tenant] < max(1, limit // present) and self.turns < limit * _BEYOND_THE_LIMIT

    def _lately_here(self) -> Iterable[str]:
        """Whoever comes again in a moment finds his share as he left it."""
        since = time.monotonic() - _LATELY_SECONDS
        self._left_at = {tenant: left for tenant, left in self._left_at.items() if left > since}
        return self._left_at

    def _most(self) -> int:
        """Turns at once, now."""
        if not self._settings.sheds_load:
            return self._settings.concurrent_turns
        now, late = time.monotonic(), self._settings.late_seconds
        self._capacity.observe(now, self.turns, sum(each.late_seconds(now) > late for each in self._listeners))
        self._metrics.turns_most.set(self._capacity.turns)
        return self._capacity.turns
