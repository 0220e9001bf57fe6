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
        if not await self._is_first(addresses) or self._now() < self._yields_until:
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
        shards = [each for each in await asyncio.gather(*map(self._ask, addresses)) if each is not None]
        staying = [each.shard_id for each in shards if not each.is_draining and each.model == self._model]
        return bool(staying) and min(staying) == self._shard_id

    async def _ask(self, address: str) -> ShardDescription | None:
        try:
            return await self._desk.describe(address)
        except AntiphonError:
            return None
