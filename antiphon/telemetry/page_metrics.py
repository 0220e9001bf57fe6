"""Series of the key/value stores in this process, read from them when somebody scrapes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from antiphon.errors import Unavailable
from antiphon.telemetry import names
from antiphon.telemetry.names import StageName


@dataclass(frozen=True, slots=True)
class PageCounts:
    """Of one stage's store: pages now, and what happened so far."""

    held: int
    # Held by nobody, but shared again if what they hold comes back.
    kept: int
    evicted: int
    # Rows taken over instead of computed.
    reused_rows: int
    # Requests that lost their pages to others.
    preemptions: int


class PageMetrics(Collector):
    def __init__(self) -> None:
        self._stages: dict[StageName, Callable[[], PageCounts]] = {}

    @contextmanager
    def watching(self, stage: StageName, read: Callable[[], PageCounts]) -> Iterator[None]:
        """`read` may raise Unavailable while the stage still loads."""
        self._stages[stage] = read
        try:
            yield
        finally:
            if self._stages.get(stage) is read:
                del self._stages[stage]

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        pages = GaugeMetricFamily(
            names.METRIC_PAGES, "Pages of the key/value store by state.", labels=("stage", "state")
        )
        counters = {
            "evicted": CounterMetricFamily(names.METRIC_PAGES_EVICTED, "Kept pages given up.", labels=("stage",)),
            "reused_rows": CounterMetricFamily(names.METRIC_ROWS_REUSED, "Rows not computed again.", labels=("stage",)),
            "preemptions": CounterMetricFamily(names.METRIC_PREEMPTIONS, "Requests set back.", labels=("stage",)),
        }
        for stage, counts in self._read():
            pages.add_metric((stage, "held"), counts.held)
            pages.add_metric((stage, "kept"), counts.kept)
            for name, family in counters.items():
                family.add_metric((stage,), getattr(counts, name))
        yield pages
        yield from counters.values()

    def _read(self) -> Iterator[tuple[StageName, PageCounts]]:
        for stage, read in list(self._stages.items()):
            try:
                yield stage, read()
            except Unavailable:
                continue
