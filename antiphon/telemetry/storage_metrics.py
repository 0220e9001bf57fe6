"""Whether the storage of sessions answers, and how fast."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from antiphon.telemetry import names

_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class StorageMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            names.METRIC_STORAGE_SECONDS, "One command to Redis, answered.", buckets=_SECONDS, registry=registry
        )
        self._up = Gauge(names.METRIC_STORAGE_UP, "1 while Redis answers; 0 before and else.", registry=registry)
        self._lost = Counter(names.METRIC_STORAGE_LOST, "Times that Redis went away.", registry=registry)

    def observe(self, seconds: float) -> None:
        self._seconds.observe(seconds)

    def set_answers(self, answers: bool) -> None:
        self._up.set(int(answers))
        if not answers:
            self._lost.inc()
