"""Traces made by hand."""

from antiphon.telemetry import names
from antiphon.telemetry.span_records import EventRecord, SpanKindName, SpanRecord

BEGIN_NS = 1_700_000_000_000_000_000


def span(
    span_id: str,
    parent_id: str | None,
    start_ms: float,
    end_ms: float,
    *,
    name: str | None = None,
    stage: str = "gateway",
    kind: SpanKindName = "internal",
    failed: bool = False,
    event_ms: float | None = None,
    trace_id: str = "ab" * 16,
) -> SpanRecord:
    events = () if event_ms is None else (EventRecord(names.EVENT_FIRST_FRAME, BEGIN_NS + int(event_ms * 1e6)),)
    return SpanRecord(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent_id,
        name=name or span_id,
        service="antiphon",
        start_ns=BEGIN_NS + int(start_ms * 1e6),
        end_ns=BEGIN_NS + int(end_ms * 1e6),
        kind=kind,
        failed=failed,
        attributes={names.STAGE: stage},
        events=events,
    )
