"""Tells the shards what the trunk asked of experts, and keeps those that it asks for most in the trunk itself."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from antiphon.errors import AntiphonError
from antiphon.experts.load import RoutingMeter
from antiphon.experts.table import ExpertKey, TrunkRouting
from services.thinker.local_experts import LocalExpertSet, hottest
from services.thinker.shard_roster import ShardRoster
from services.thinker.shard_watch import ShardNetwork

_LOG = logging.getLogger(__name__)

_SAY_EVERY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ReportLimits:
    every_seconds: float
    # For an answer to one report.
    answer_seconds: float
    # Of each layer that are held here because they are asked for most, and how often they are chosen anew.
    hot_experts: int
    hot_seconds: float


class RoutingReports:
    """fixed: experts that are held here in any case."""

    def __init__(
        self,
        meter: RoutingMeter,
        roster: ShardRoster,
        network: ShardNetwork,
        local: LocalExpertSet,
        fixed: frozenset[ExpertKey],
        limits: ReportLimits,
    ) -> None:
        self._meter, self._roster, self._network, self._limits = meter, roster, network, limits
        self._local, self._fixed = local, fixed
        self._trunk_id = uuid4().hex
        self._chosen_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await asyncio.to_thread(self._local.hold, self._fixed)
        self._task = asyncio.create_task(self._work(), name="expert routing")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        complained_at = float("-inf")
        while True:
            await asyncio.sleep(self._limits.every_seconds)
            try:
                await self._report()
            except Exception:
                if time.monotonic() > complained_at + _SAY_EVERY_SECONDS:
                    complained_at = time.monotonic()
                    _LOG.exception("What was asked of experts could not be reported. It is tried again.")

    async def _report(self) -> None:
        routing = await asyncio.to_thread(self._meter.routing, self._trunk_id)
        await asyncio.gather(*(self._tell(shard.address, routing) for shard in self._roster.live.shards))
        if self._limits.hot_experts and time.monotonic() >= self._chosen_at + self._limits.hot_seconds:
            self._chosen_at = time.monotonic()
            await asyncio.to_thread(self._choose, routing)

    async def _tell(self, address: str, routing: TrunkRouting) -> None:
        try:
            await self._network.report(address, routing, timeout_seconds=self._limits.answer_seconds)
        except AntiphonError as error:
            _LOG.debug("The expert shard at %s takes no report: %s", address, error.message)

    def _choose(self, routing: TrunkRouting) -> None:
        before = self._local.held
        wanted = self._fixed | hottest(routing.pairs, self._limits.hot_experts, before, self._fixed)
        try:
            if wanted != before:
                self._local.hold(wanted)
        except (AntiphonError, OSError, RuntimeError):
            _LOG.exception("The hottest experts could not be read into the trunk.")
