"""Keeps the placement while this shard has the least address of those that answer. Every shard has a keeper; no trunk
needs one."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from antiphon.errors import AntiphonError, Conflict
from antiphon.experts.table import ExpertModel
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
    ) -> None:
        """shard_id: of the shard in this process."""
        self._shard_id, self._model, self._desk, self._settings, self._now = shard_id, model, desk, settings, now
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
        if not await self._is_first(addresses):
            self.reign = None
            return
        if self.reign is None:
            self.reign = Reign(self._shard_id, self._model, self._desk, self._settings, self._now)
        try:
            await self.reign.round(addresses)
        except Conflict as error:
            _LOG.info("Another keeper is obeyed: %s", error.message)
            self.reign = None

    async def _is_first(self, addresses: Sequence[str]) -> bool:
        """Of those that answer, stay, and have experts of this model."""
        for address in addresses:
            try:
                shard = await self._desk.describe(address)
            except AntiphonError:
                continue
            if not shard.is_draining and shard.model == self._model:
                return shard.shard_id == self._shard_id
        return False
