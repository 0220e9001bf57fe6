"""Keeps the placement while this shard has the least id of those that answer. Every shard has a keeper; no trunk needs
one."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

from antiphon.errors import AntiphonError, Conflict
from antiphon.experts.table import ExpertModel, ShardDescription
from services.experts.keeper_config import KeeperSettings
from services.experts.keeper_desk import ShardDesk
from services.experts.reign import Reign

_LOG = logging.getLogger(__name__)


class PlacementKeeper:
    def __init__(
        self,
        shard_id: str,
        model: ExpertModel,
        desk: ShardDesk,
        settings: KeeperSettings,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """shard_id: of the shard in this process. chance: from 0 to 1."""
        self._shard_id, self._model, self._desk, self._settings, self._now = shard_id, model, desk, settings, now
        self._chance, self._yields_until = chance, float("-inf")
        # Of one that comes before this shard, as long as it answers: nobody else has to be asked then.
        self._predecessor: str | None = None
        # While this keeper is the one that rules.
        self.reign: Reign | None = None

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                _LOG.exception("The placement of the experts could not be looked at.")
                self.reign = None
            await asyncio.sleep(self._settings.look_every_seconds)

    async def look(self) -> None:
        addresses = sorted(set(await self._desk.addresses()))
        if self._now() < self._yields_until or not await self._is_first(addresses):
            self.reign = None
            return
        if self.reign is None:
            self.reign = Reign(self._shard_id, self._model, self._desk, self._settings, self._now)
        try:
            await self.reign.round(addresses)
        except Conflict as error:
            self._yield(error)

    def _yield(self, error: Conflict) -> None:
        """Two that do not see each other would outbid each other for ever, and neither would get anything done."""
        seconds = self._settings.yield_seconds * (0.5 + self._chance())
        self._yields_until = self._now() + seconds
        self.reign = None
        _LOG.info("Another keeper is obeyed; this one is still for %.1f s: %s", seconds, error.message)

    async def _is_first(self, addresses: Sequence[str]) -> bool:
        """Of those that answer, stay, and have experts of this model. By what they tell: an address may be another one
        for each who looks it up."""
        known = self._predecessor
        if known is not None and known in addresses and self._precedes(await self._ask(known)):
            return False
        shards = [each for each in await asyncio.gather(*map(self._ask, addresses)) if each is not None]
        staying = [each for each in shards if not each.is_draining and each.model == self._model]
        first = min(staying, key=lambda each: each.shard_id, default=None)
        self._predecessor = first.address if first is not None and self._precedes(first) else None
        return first is not None and first.shard_id == self._shard_id

    def _precedes(self, shard: ShardDescription | None) -> bool:
        if shard is None or shard.is_draining or shard.model != self._model:
            return False
        return shard.shard_id < self._shard_id

    async def _ask(self, address: str) -> ShardDescription | None:
        try:
            return await self._desk.describe(address)
        except AntiphonError:
            return None
