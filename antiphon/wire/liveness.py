"""Which addresses answer: those that failed are passed over until they serve again, and silence is asked about."""

import asyncio
import time
from collections.abc import Collection

from antiphon.wire import health
from antiphon.wire.call_limits import CallLimits
from antiphon.wire.channels import Channels


class Liveness:
    """Close it with the channels that it asks through."""

    def __init__(self, channels: Channels, limits: CallLimits) -> None:
        self._channels, self._limits = channels, limits
        self._failed: dict[str, asyncio.Task[None]] = {}
        self._asking: dict[str, asyncio.Task[bool]] = {}

    @property
    def failed(self) -> Collection[str]:
        """Addresses to be passed over for the time being."""
        return self._failed.keys()

    def note_failure(self, address: str, service: str) -> None:
        """`service` is the full name of the gRPC service that was called there."""
        if address not in self._failed:
            watching = self._watch(address, service)
            self._failed[address] = asyncio.create_task(watching, name=f"recovery of {address}")

    async def answers(self, address: str) -> bool:
        """Whether anybody is there, serving or not; many who want to know at once ask once."""
        asking = self._asking.get(address)
        if asking is None:
            asked = health.answers(self._channels, address, timeout_seconds=self._limits.alive_seconds)
            asking = self._asking[address] = asyncio.create_task(asked, name=f"health of {address}")
            asking.add_done_callback(lambda _: self._asking.pop(address, None))
        return await asyncio.shield(asking)

    async def close(self) -> None:
        tasks = [*self._failed.values(), *self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, address: str, service: str) -> None:
        forgotten_at = time.monotonic() + self._limits.forget_seconds
        try:
            while time.monotonic() < forgotten_at:
                await asyncio.sleep(self._limits.recovery_seconds)
                if await health.is_serving(self._channels, address, service):
                    return
        finally:
            del self._failed[address]
