"""Calls of expert shards. Shards come and go, so none is a label of its own."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from antiphon.telemetry import names

_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class ExpertMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            names.METRIC_EXPERT_CALLS,
            "Calls of expert shards: answered, or asked of another copy.",
            ("outcome",),
            registry=registry,
        )
        self._pairs = Counter(
            names.METRIC_EXPERT_PAIRS, "Pairs of a row and an expert that shards computed.", registry=registry
        )
        self._wait = Histogram(
            names.METRIC_EXPERT_WAIT,
            "In which a step had nothing to do but wait for expert shards.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._shards = Gauge(names.METRIC_EXPERT_SHARDS, "Expert shards that are called now.", registry=registry)
        self._missing = Gauge(names.METRIC_EXPERTS_MISSING, "Experts without a copy now.", registry=registry)

    def observe_step(self, *, answered: int, retried: int, pairs: int, wait_seconds: float) -> None:
        self._calls.labels("answered").inc(answered)
        self._calls.labels("retried").inc(retried)
        self._pairs.inc(pairs)
        self._wait.observe(wait_seconds)

    def set_copies(self, *, shards: int, missing: int) -> None:
        self._shards.set(shards)
        self._missing.set(missing)
