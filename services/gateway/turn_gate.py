"""How many turns this gateway answers at once; one more is refused at once, so that its client can go elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from antiphon.errors import AtCapacity
from antiphon.telemetry.metrics import Metrics
from services.gateway.config import GatewaySettings


class TurnGate:
    def __init__(self, settings: GatewaySettings, metrics: Metrics) -> None:
        self._limit, self._retry_after_seconds = settings.concurrent_turns, settings.retry_after_seconds
        self._metrics = metrics
        self.turns = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        if self.turns >= self._limit:
            raise AtCapacity(
                f"The server answers {self._limit} requests at once and is full. Try again in a moment.",
                retry_after_seconds=self._retry_after_seconds,
            )
        self.turns += 1
        self._metrics.turns_active.inc()
        try:
            yield
        finally:
            self.turns -= 1
            self._metrics.turns_active.dec()
