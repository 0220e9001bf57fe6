"""Spans: where they go, how they are opened, and how their context crosses a process.

A server call needs no code of its own in a service: `antiphon.hosting` opens the server span, adds the first-output
event and, from the `Timings` of the End message, the queue, prefill (or encode) and decode spans below it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from antiphon.telemetry import names

Attributes = Mapping[str, AttributeValue]

_TRACER = "antiphon"


@contextmanager
def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: Context | None = None,
) -> Iterator[Span]:
    """Opens a span below the current one (or `parent`). A failure marks it with its class, never with its text."""
    tracer = trace.get_tracer(_TRACER)
    with tracer.start_as_current_span(
        name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as opened:
        try:
            yield opened
        except BaseException as error:
            mark_failed(opened, error)
            raise


def mark_failed(opened: Span, error: BaseException) -> None:
    """Messages stay out: they may quote what a user said."""
    opened.set_attribute(names.ERROR_TYPE, type(error).__name__)
    opened.set_status(Status(StatusCode.ERROR))


def record(
    name: str, start_ns: int, end_ns: int, attributes: Attributes | None = None, parent: Context | None = None
) -> None:
    """A span of something that is already over; times in nanoseconds since the epoch."""
    opened = trace.get_tracer(_TRACER).start_span(name, parent, attributes=attributes, start_time=start_ns)
    opened.end(end_ns)


def first_event(opened: Span, name: str, attributes: Attributes | None = None) -> None:
    """Adds the event now; call it once, at the first output of a stream."""
    opened.add_event(name, attributes)


def current_trace_id() -> str | None:
    """32 hex digits of the trace that is open here, for logs and error messages."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None


def context_to_metadata(context: Context | None = None) -> tuple[tuple[str, str], ...]:
    """W3C traceparent, tracestate and baggage as gRPC metadata."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    return tuple((key.lower(), value) for key, value in carrier.items())


def context_from_headers(headers: Mapping[str, str]) -> Context:
    """Headers of HTTP or metadata of gRPC, keys in lower case."""
    return propagate.extract(headers)
