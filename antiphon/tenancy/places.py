"""Keeps the places that this gateway holds: as long as it lives they are renewed, and no longer."""

import asyncio
import logging

from antiphon.errors import AntiphonError
from antiphon.tenancy.limiter import Limiter, Reservation

_LOG = logging.getLogger(__name__)


class HeldPlaces:
    def __init__(self, limiter: Limiter, lease_seconds: float) -> None:
        self._limiter, self._every_seconds = limiter, lease_seconds / 3
        self._held: dict[str, Reservation] = {}
        self._renewing: asyncio.Task[None] | None = None

    def hold(self, reservation: Reservation) -> None:
        self._held[reservation.id] = reservation
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew(), name="places")

    def release(self, reservation: Reservation) -> None:
        self._held.pop(reservation.id, None)

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})

    async def _renew(self) -> None:
        """Ends when nothing is held; a storage that is away is asked again the next time."""
        while self._held:
            await asyncio.sleep(self._every_seconds)
            try:
                await self._limiter.renew(list(self._held.values()))
            except AntiphonError as error:
                _LOG.warning("places could not be renewed: %s", type(error).__name__)
