"""The process's Prometheus metrics: one registry, one object that knows every series."""

from functools import cache, cached_property
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from antiphon.telemetry import names
from antiphon.telemetry.expert_metrics import ExpertMetrics
from antiphon.telemetry.first_packet import FirstPacket
from antiphon.telemetry.names import StageName
from antiphon.telemetry.page_metrics import PageMetrics
from antiphon.telemetry.storage_metrics import StorageMetrics
from antiphon.telemetry.tenant_metrics import TenantMetrics

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_SECONDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._queue = self._seconds(names.METRIC_STAGE_QUEUE, "From a call's arrival until work on it begins.", "stage")
        self._first = self._seconds(names.METRIC_STAGE_FIRST_OUTPUT, "From there until its first output.", "stage")
        self._total = self._seconds(names.METRIC_STAGE_TOTAL, "From a call's arrival until its end.", "stage")
        self._part = self._seconds(names.METRIC_FIRST_PACKET_PART, "Part of the way to a turn's first packet.", "part")
        self.first_audio = self._seconds(names.METRIC_FIRST_AUDIO, "From a turn's arrival until its first sound.")
        self.playback_silent = self._seconds(
            names.METRIC_PLAYBACK_SILENT, "In which the listener of a streamed answer had nothing to play."
        )
        self.realtime_turn_latency = self._seconds(
            names.METRIC_REALTIME_TURN_LATENCY, "From the end of a user's speech until the first sound of its answer."
        )
        self.realtime_sessions = self._gauge(names.METRIC_REALTIME_SESSIONS, "Live sessions now.")
        self.turns_active = self._gauge(names.METRIC_TURNS_ACTIVE, "Turns being answered now.")
        self.turns_most = self._gauge(names.METRIC_TURNS_MOST, "Turns that are let in at once now.")
        self._media = self._counter(names.METRIC_MEDIA, "Media by how their rows came.", "rows")
        self._requests = self._counter(names.METRIC_REQUESTS, "Calls by stage and status.", "stage", "status")
        self._tokens = self._counter(names.METRIC_TOKENS, "Tokens by direction and modality.", "direction", "modality")
        self._cached_tokens = self._counter(
            names.METRIC_CACHED_TOKENS, "Prompt tokens that were computed for an earlier request."
        )
        self._failovers = self._counter(
            names.METRIC_FAILOVERS, "Calls that another replica went on with in the middle of their answer.", "stage"
        )
        self.cut_journals = self._counter(
            names.METRIC_CUT_JOURNALS,
            "Turns that went on while their journal did not: they cannot go on elsewhere, or only from where it ends.",
        )
        self._speculative_turns = self._counter(
            names.METRIC_SPECULATIVE_TURNS,
            "Answers begun when a user paused, by whether they became responses.",
            "outcome",
        )
        self._preparations = self._counter(
            names.METRIC_PREPARATIONS, "Prompts computed as far as they were known, by how that ended.", "outcome"
        )
        self.tenants, self.pages = TenantMetrics(self.registry), PageMetrics()
        self.registry.register(self.pages)

    @cached_property
    def storage(self) -> StorageMetrics:
        """Exposed only where it is used: who has no Redis has none that is away."""
        return StorageMetrics(self.registry)

    @cached_property
    def experts(self) -> ExpertMetrics:
        """Exposed only where experts are on shards."""
        return ExpertMetrics(self.registry)

    def count_failover(self, stage: StageName) -> None:
        self._failovers.labels(stage).inc()

    def observe_stage(self, stage: StageName, *, queue_ms: float, first_output_ms: float, total_ms: float) -> None:
        self._queue.labels(stage).observe(queue_ms / 1e3)
        self._first.labels(stage).observe(first_output_ms / 1e3)
        self._total.labels(stage).observe(total_ms / 1e3)

    def count_request(self, stage: StageName, status: str) -> None:
        """`status` is a gRPC status name for stages and an HTTP status for the gateway."""
        self._requests.labels(stage, status).inc()

    def count_tokens(self, direction: str, modality: str, amount: int) -> None:
        self._tokens.labels(direction, modality).inc(amount)

    def count_media(self, *, computed: int, cached: int) -> None:
        self._media.labels("computed").inc(computed)
        self._media.labels("cached").inc(cached)

    def count_speculative_turn(self, outcome: Literal["used", "wasted"]) -> None:
        self._speculative_turns.labels(outcome).inc()

    def count_preparation(self, outcome: Literal["done", "cancelled", "failed"]) -> None:
        self._preparations.labels(outcome).inc()

    def count_cached_tokens(self, amount: int) -> None:
        self._cached_tokens.inc(amount)

    def observe_first_packet(self, packet: FirstPacket) -> None:
        for part, value_ms in packet.parts_ms.items():
            self._part.labels(part).observe(value_ms / 1e3)
        self.first_audio.observe(packet.total_ms / 1e3)

    def exposition(self) -> bytes:
        """The text that a Prometheus server scrapes; its content type is CONTENT_TYPE."""
        return generate_latest(self.registry)

    def _seconds(self, name: str, help_text: str, *labels: str) -> Histogram:
        return Histogram(name, help_text, labels, buckets=_SECONDS, registry=self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(name, help_text, registry=self.registry)


@cache
def process_metrics() -> Metrics:
    """The one of this process, made at its first use."""
    return Metrics()
