"""Finds the least loaded replica of a stage, or the one that a conversation was at, from reports that the replicas give
of themselves."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from antiphon.errors import Unavailable
from antiphon.telemetry.names import StageName
from antiphon.wire.directory import preference

_LOG = logging.getLogger(__name__)

# A replica with more calls than this, given the mean of all, takes no call for what it has computed.
_FULL_FACTOR: Final = 1.5
_FULL_CALLS: Final = 4
# Who has not reported takes over for so long when nobody else is left: he may have been too busy, and answers calls
# nevertheless. Asking anew waits for the dead, too.
_BELIEVED_SECONDS: Final = 5.0


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
    # Those who reported before and not this time, and when they did last.
    silent: dict[ReplicaReport, float] = field(default_factory=dict)
    asked_seconds: float = float("-inf")
    heard_seconds: float = float("-inf")
    sent: Counter[str] = field(default_factory=Counter)
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    renewing: asyncio.Task[None] | None = None

    def note(self, reports: Sequence[ReplicaReport], asked_seconds: float) -> None:
        """Asked then; nobody's answer keeps what was known."""
        self.asked_seconds = asked_seconds
        self.sent.clear()
        if not reports:
            return
        heard = {report.address for report in reports}
        known = {**self.silent, **dict.fromkeys(self.reports, self.heard_seconds)}
        self.silent = {
            each: since
            for each, since in known.items()
            if each.address not in heard and since + _BELIEVED_SECONDS > asked_seconds
        }
        self.reports, self.heard_seconds = tuple(reports), asked_seconds


class ReplicaDirectory:
    """From a stage's first call on its reports are renewed in the background, so that no later call waits for them."""

    def __init__(self, ask: AskReplicas, *, renew_seconds: float = 1.0, ask_seconds: float = 5.0) -> None:
        self._ask = ask
        self._renew_seconds = renew_seconds
        self._ask_seconds = ask_seconds
        self._tables: dict[StageName, _Table] = {}
        # Of those that reported last to whoever wanted all.
        self._addresses: dict[StageName, Sequence[str]] = {}

    async def locate(self, stage: StageName, *, avoiding: Collection[str] = (), affinity: bytes = b"") -> str:
        """Asks anew at once if all that is known has just failed, or is nothing."""
        table = self._tables.setdefault(stage, _Table())
        if not (_open_ones(table.reports, avoiding) or _open_ones(table.silent, avoiding)):
            await self._read(stage, table)
        if table.renewing is None:
            table.renewing = asyncio.create_task(self._renew(stage, table), name=f"replicas of {stage}")
        candidates = (
            _open_ones(table.reports, avoiding) or _open_ones(table.silent, avoiding) or _open_ones(table.reports)
        )
        if not candidates:
            raise Unavailable(f"No replica of the {stage} stage is ready.")
        chosen = _preferred(table, candidates, affinity) if affinity else _least_loaded(table, candidates)
        table.sent[chosen] += 1
        return chosen

    async def reports(self, stage: StageName) -> Sequence[ReplicaReport]:
        """Of all replicas, asked now."""
        return await self._ask(stage)

    async def addresses(self, stage: StageName) -> Sequence[str]:
        """Of those that report now; when nobody does or can be asked, of those that reported last. None before anybody
        has."""
        try:
            async with asyncio.timeout(self._ask_seconds):
                reports = await self._ask(stage)
        except Exception:
            _LOG.debug("The replicas of the %s could not be asked.", stage, exc_info=True)
            reports = ()
        if reports:
            self._addresses[stage] = [report.address for report in reports]
        return self._addresses.get(stage, ())

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
            table.note(reports, began_seconds)


def _open_ones(reports: Iterable[ReplicaReport], avoiding: Collection[str] = ()) -> list[ReplicaReport]:
    return [report for report in reports if not report.is_draining and report.address not in avoiding]


def _load(table: _Table, report: ReplicaReport) -> int:
    return report.active_calls + report.waiting + table.sent[report.address]


def _least_loaded(table: _Table, candidates: Sequence[ReplicaReport]) -> str:
    """Of equals any, so that several directories do not all choose the same."""
    return min(candidates, key=lambda report: (_load(table, report), random.random())).address  # noqa: S311 - spreads load, guards nothing


def _preferred(table: _Table, candidates: Sequence[ReplicaReport], affinity: bytes) -> str:
    """The first in the affinity's own order that has not much more to do than the others: what it has computed already
    does not outweigh a queue. (Consistent hashing with bounded loads, Mirrokni et al. 2018.)"""
    mean = sum(_load(table, report) for report in candidates) / len(candidates)
    bound = _FULL_FACTOR * mean + _FULL_CALLS
    free = [report for report in candidates if _load(table, report) <= bound]
    return max((report.address for report in free), key=lambda address: preference(affinity, address))
