"""Keeps the placement while this shard has the least id of those that answer. Every shard has a keeper; no trunk needs
one."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from antiphon.errors import AntiphonError, Conflict
from antiphon.experts.table import ExpertModel, ShardDescription
from services.experts.keeper_config import KeeperSettings
from services.experts.keeper_desk import ShardDesk
from services.experts.reign import Reign

_LOG = logging.getLogger(__name__)

# Of the time after which one that is silent is forgotten: all are asked so often.
_ALL_ASKED_SHARE: Final = 0.8


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
        # Of one that comes before this shard: while it answers, nobody else has to be asked for some seconds, in which
        # none of them may be silent for so long as to be forgotten.
        self._predecessor: str | None = None
        self._asks_all_at = float("-inf")
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
        asked = [address for address in addresses if address == self._predecessor]
        shards = await self._told(asked)
        if any(map(self._precedes, shards)) and self._now() < self._asks_all_at:
            return False
        self._asks_all_at = self._now() + _ALL_ASKED_SHARE * self._settings.silence_seconds
        shards += await self._told([address for address in addresses if address not in asked])
        staying = [each for each in shards if not each.is_draining and each.model == self._model]
        first = min(staying, key=lambda each: each.shard_id, default=None)
        self._predecessor = first.address if first is not None and self._precedes(first) else None
        return first is not None and first.shard_id == self._shard_id

    def _precedes(self, shard: ShardDescription) -> bool:
        return not shard.is_draining and shard.model == self._model and shard.shard_id < self._shard_id

    async def _told(self, addresses: Sequence[str]) -> list[ShardDescription]:
        return [each for each in await asyncio.gather(*map(self._ask, addresses)) if each is not None]

    async def _ask(self, address: str) -> ShardDescription | None:
        try:
            return await self._desk.describe(address)
        except AntiphonError:
            return None
