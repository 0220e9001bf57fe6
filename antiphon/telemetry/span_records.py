"""A finished span as plain data, wherever it came from, and a bounded ring of the latest ones."""

import threading
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as RecordingSpan
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanKind, StatusCode

from antiphon.telemetry import names

AttributeScalar = str | bool | int | float
SpanKindName = Literal["internal", "server", "client", "producer", "consumer"]

_KINDS: Final[dict[SpanKind, SpanKindName]] = {
    SpanKind.INTERNAL: "internal",
    SpanKind.SERVER: "server",
    SpanKind.CLIENT: "client",
    SpanKind.PRODUCER: "producer",
    SpanKind.CONSUMER: "consumer",
}


@dataclass(frozen=True, slots=True)
class EventRecord:
    name: str
    time_ns: int


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """Ids are hex; times are nanoseconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    service: str
    start_ns: int
    end_ns: int
    kind: SpanKindName = "internal"
    failed: bool = False
    attributes: Mapping[str, AttributeScalar] = field(default_factory=dict)
    events: tuple[EventRecord, ...] = ()

    @property
    def stage(self) -> str:
        return str(self.attributes.get(names.STAGE) or self.service.removeprefix("antiphon-"))

    @property
    def duration_ms(self) -> float:
        return (self.end_ns - self.start_ns) / 1e6


class SpanRing(SpanProcessor):
    """Keeps the latest finished spans in memory and counts the open ones."""

    def __init__(self, capacity: int = 4096) -> None:
        self._finished: deque[ReadableSpan] = deque(maxlen=capacity)
        self._open = 0
        self._lock = threading.Lock()

    @property
    def open_count(self) -> int:
        return self._open

    def spans(self, trace_id: str | None = None) -> list[SpanRecord]:
        """Finished spans in the order of their ends, of one trace or of all."""
        with self._lock:
            finished = list(self._finished)
        records = [record_of(span) for span in finished]
        return [record for record in records if trace_id in (None, record.trace_id)]

    def clear(self) -> None:
        with self._lock:
            self._finished.clear()

    def on_start(self, span: RecordingSpan, parent_context: Context | None = None) -> None:  # noqa: ARG002
        with self._lock:
            self._open += 1

    def on_end(self, span: ReadableSpan) -> None:
        with self._lock:
            self._open -= 1
            self._finished.append(span)


def record_of(span: ReadableSpan) -> SpanRecord:
    context = span.get_span_context() or INVALID_SPAN_CONTEXT
    return SpanRecord(
        trace_id=f"{context.trace_id:032x}",
        span_id=f"{context.span_id:016x}",
        parent_id=f"{span.parent.span_id:016x}" if span.parent else None,
        name=span.name,
        service=str(span.resource.attributes.get("service.name", "")),
        start_ns=span.start_time or 0,
        end_ns=span.end_time or 0,
        kind=_KINDS[span.kind],
        failed=span.status.status_code is StatusCode.ERROR,
        attributes=_scalars((span.attributes or {}).items()),
        events=tuple(EventRecord(event.name, event.timestamp) for event in span.events),
    )


def _scalars(items: Iterable[tuple[str, object]]) -> dict[str, AttributeScalar]:
    return {key: value if isinstance(value, AttributeScalar) else str(value) for key, value in items}
