"""Series of the expert shard in this process, read from it when somebody scrapes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from antiphon.telemetry import names


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """Of the latest seconds, but for what is counted since the shard began."""

    queued_p95_seconds: float
    computed_p50_seconds: float
    # From 0 to 1.
    utilisation: float
    held: int
    links: int
    calls: int
    pairs: int


class ShardMetrics(Collector):
    def __init__(self, read: Callable[[], ShardCounts]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        counts = self._read()
        for name, text, value in (
            (names.METRIC_SHARD_QUEUED, "From a call's arrival to its begin, p95.", counts.queued_p95_seconds),
            (names.METRIC_SHARD_COMPUTED, "Of computing a call, median.", counts.computed_p50_seconds),
            (names.METRIC_SHARD_UTILISATION, "Share of the time in which it computed.", counts.utilisation),
            (names.METRIC_SHARD_HELD, "(layer, expert) that it holds.", counts.held),
            (names.METRIC_SHARD_LINKS, "Links of trunks.", counts.links),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        yield CounterMetricFamily(names.METRIC_SHARD_CALLS, "Calls that it computed.", value=counts.calls)
        yield CounterMetricFamily(names.METRIC_SHARD_PAIRS, "Their pairs of a row and an expert.", value=counts.pairs)


@contextmanager
def exposed(read: Callable[[], ShardCounts], registry: CollectorRegistry) -> Iterator[None]:
    """For as long as the block lasts. A process has one shard."""
    metrics = ShardMetrics(read)
    registry.register(metrics)
    try:
        yield
    finally:
        registry.unregister(metrics)
