"""Finds the least loaded replica of a stage from reports that the replicas give of themselves."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

from antiphon.errors import Unavailable
from antiphon.telemetry.names import StageName

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    address: str
    active_calls: int = 0
    waiting: int = 0
    is_draining: bool = False


# Asks every replica of a stage; those that do not answer are left out.
AskReplicas = Callable[[StageName], Awaitable[Sequence[ReplicaReport]]]


@dataclass(slots=True)
class _Table:
    """What is known of one stage's replicas, and who was sent there since."""

    reports: Sequence[ReplicaReport] = ()
    asked_seconds: float = float("-inf")
    sent: Counter[str] = field(default_factory=Counter)
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    renewing: asyncio.Task[None] | None = None


class ReplicaDirectory:
    """From a stage's first call on its reports are renewed in the background, so that no later call waits for them."""

    def __init__(self, ask: AskReplicas, *, renew_seconds: float = 1.0, ask_seconds: float = 5.0) -> None:
        self._ask = ask
        self._renew_seconds = renew_seconds
        self._ask_seconds = ask_seconds
        self._tables: dict[StageName, _Table] = {}

    async def locate(self, stage: StageName, *, avoiding: Collection[str] = ()) -> str:
        """Asks anew at once if what is known has just failed, or is nothing."""
        table = self._tables.setdefault(stage, _Table())
        if avoiding or not table.reports:
            await self._read(stage, table)
        if table.renewing is None:
            table.renewing = asyncio.create_task(self._renew(stage, table), name=f"replicas of {stage}")
        return _least_loaded(stage, table, avoiding)

    async def reports(self, stage: StageName) -> Sequence[ReplicaReport]:
        """Of all replicas, asked now."""
        return await self._ask(stage)

    async def close(self) -> None:
        renewing = [table.renewing for table in self._tables.values() if table.renewing is not None]
        for task in renewing:
            task.cancel()
        await asyncio.gather(*renewing, return_exceptions=True)

    async def _renew(self, stage: StageName, table: _Table) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            await self._read(stage, table)

    async def _read(self, stage: StageName, table: _Table) -> None:
        """One question at a time. A failure, or silence of all, keeps what was known: replicas answer calls without
        whoever lists them, and also while they are too busy to report."""
        wanted_seconds = time.monotonic()
        async with table.asking:
            if table.asked_seconds > wanted_seconds:
                return
            began_seconds = time.monotonic()
            try:
                async with asyncio.timeout(self._ask_seconds):
                    reports = await self._ask(stage)
            except Exception:
                _LOG.warning("The replicas of the %s could not be asked.", stage, exc_info=True)
                return
            table.reports, table.asked_seconds = tuple(reports) or table.reports, began_seconds
            table.sent.clear()


def _least_loaded(stage: StageName, table: _Table, avoiding: Collection[str]) -> str:
    """Of equals any, so that several directories do not all choose the same."""
    open_ones = [report for report in table.reports if not report.is_draining]
    candidates = [report for report in open_ones if report.address not in avoiding] or open_ones
    if not candidates:
        raise Unavailable(f"No replica of the {stage} stage is ready.")
    chosen = min(
        candidates,
        key=lambda report: (report.active_calls + report.waiting + table.sent[report.address], random.random()),  # noqa: S311 - spreads load, guards nothing
    )
    table.sent[chosen.address] += 1
    return chosen.address
