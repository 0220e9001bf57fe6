"""How many replicas a stage should have, from what its replicas record. Ray Serve loads the policy by its path."""

import math
from collections.abc import Mapping
from typing import Final, Protocol

ACTIVE_CALLS: Final = "active_calls"
WAITING: Final = "waiting"


class RecordedMetrics(Protocol):
    """The part of Ray Serve's AutoscalingContext that is read here."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[object, float]] | None: ...


class CallsPolicy:
    """One replica for every `calls_per_replica` calls that are answered or wait; Serve applies bounds and delays."""

    def __init__(self, calls_per_replica: float) -> None:
        self._calls_per_replica = calls_per_replica

    def __call__(self, recorded: RecordedMetrics) -> tuple[int, dict[str, float]]:
        metrics = recorded.aggregated_metrics or {}
        calls = sum(sum((metrics.get(name) or {}).values()) for name in (ACTIVE_CALLS, WAITING))
        return max(1, math.ceil(calls / self._calls_per_replica - 1e-9)), {"calls": calls}
