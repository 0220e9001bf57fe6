"""Turns, tokens and calls by tenant: the first so many by their names, all others together, so that labels stay few."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter

from antiphon.telemetry import names
from antiphon.telemetry.names import StageName

_OTHER: Final = "other"
_UNKNOWN: Final = ""


class TenantMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._named: set[str] = set()
        self._most = 0
        self._requests = Counter(
            names.METRIC_TENANT_REQUESTS, "Turns by tenant and outcome.", ("tenant", "outcome"), registry=registry
        )
        self._tokens = Counter(
            names.METRIC_TENANT_TOKENS, "Tokens by tenant and direction.", ("tenant", "direction"), registry=registry
        )
        self._refused = Counter(
            names.METRIC_TENANT_REFUSED, "Turns that their tenant's limits refused.", ("tenant",), registry=registry
        )
        labels = ("tenant", "stage")
        self._stage_calls = Counter(
            names.METRIC_TENANT_STAGE_CALLS, "Calls of a stage by tenant.", labels, registry=registry
        )
        self._stage_seconds = Counter(
            names.METRIC_TENANT_STAGE_SECONDS, "From arrivals to ends of calls of a stage.", labels, registry=registry
        )
        self._lost_records = Counter(
            names.METRIC_USAGE_LOST, "Usage records that the operators' log alone has.", registry=registry
        )

    def name_at_most(self, tenants: int) -> None:
        self._most = tenants

    def count_turn(self, tenant: str, outcome: str, *, input_tokens: int, output_tokens: int) -> None:
        label = self._label(tenant)
        self._requests.labels(label, outcome).inc()
        self._tokens.labels(label, "input").inc(input_tokens)
        self._tokens.labels(label, "output").inc(output_tokens)

    def count_call(self, tenant: str, stage: StageName, seconds: float) -> None:
        """tenant: empty where the caller did not say."""
        label = self._label(tenant) if tenant else _UNKNOWN
        self._stage_calls.labels(label, stage).inc()
        self._stage_seconds.labels(label, stage).inc(seconds)

    def count_refusal(self, tenant: str) -> None:
        self._refused.labels(self._label(tenant)).inc()

    def count_lost_record(self) -> None:
        self._lost_records.inc()

    def _label(self, tenant: str) -> str:
        if tenant in self._named:
            return tenant
        if len(self._named) >= self._most:
            return _OTHER
        self._named.add(tenant)
        return tenant
