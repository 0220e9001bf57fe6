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
    asking: asyncio.Task[None] | None = None


class ReplicaDirectory:
    """Reports are renewed in the background, so that a call waits for them only when none is useful."""

    def __init__(
        self, ask: AskReplicas, *, fresh_seconds: float = 1.0, useful_seconds: float = 30.0, ask_seconds: float = 5.0
    ) -> None:
        self._ask = ask
        self._fresh_seconds = fresh_seconds
        self._useful_seconds = useful_seconds
        self._ask_seconds = ask_seconds
        self._tables: dict[StageName, _Table] = {}

    async def locate(self, stage: StageName, *, avoiding: Collection[str] = ()) -> str:
        table = self._tables.setdefault(stage, _Table())
        age_seconds = time.monotonic() - table.asked_seconds
        if age_seconds > self._fresh_seconds or avoiding:
            self._renew(stage, table)
        if table.asking is not None and (age_seconds > self._useful_seconds or avoiding or not table.reports):
            await asyncio.shield(table.asking)
        return _least_loaded(stage, table, avoiding)

    async def close(self) -> None:
        asking = [table.asking for table in self._tables.values() if table.asking is not None]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    def _renew(self, stage: StageName, table: _Table) -> None:
        if table.asking is None or table.asking.done():
            table.asking = asyncio.create_task(self._read(stage, table), name=f"replicas of {stage}")

    async def _read(self, stage: StageName, table: _Table) -> None:
        """A failure keeps what was known: the replicas answer calls without whoever lists them."""
        try:
            async with asyncio.timeout(self._ask_seconds):
                reports = await self._ask(stage)
        except Exception:
            _LOG.warning("The replicas of the %s could not be asked.", stage, exc_info=True)
            return
        table.reports, table.asked_seconds = tuple(reports), time.monotonic()
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
