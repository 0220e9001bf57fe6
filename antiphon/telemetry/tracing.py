"""Spans: where they go, how they are opened, and how their context crosses a process.

A server call needs no code of its own in a service: `antiphon.hosting` opens the server span, adds the first-output
event and, from the `Timings` of the End message, the queue, prefill (or encode) and decode spans below it.
"""

import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry import baggage, propagate, trace
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as RecordingSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from antiphon.telemetry import names

Attributes = Mapping[str, AttributeValue]

_TRACER: Final = "antiphon"
_FLUSH_MS: Final = 3_000
_SEND_EVERY_MS: Final = 1_000
_MAX_HEADER_CHARACTERS: Final = 4096
_MAX_TENANT_CHARACTERS: Final = 64


class Destinations(SpanProcessor):
    """Hands every span to whoever listens now. A provider keeps its processors for ever; these can leave again."""

    def __init__(self) -> None:
        self._processors: tuple[SpanProcessor, ...] = ()
        self._lock = threading.Lock()

    def add(self, processor: SpanProcessor) -> None:
        with self._lock:
            self._processors = (*self._processors, processor)

    def remove(self, processor: SpanProcessor) -> None:
        with self._lock:
            self._processors = tuple(known for known in self._processors if known is not processor)

    def on_start(self, span: RecordingSpan, parent_context: Context | None = None) -> None:
        _inherit_stage(span, parent_context)
        _inherit_tenant(span, parent_context)
        for processor in self._processors:
            processor.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        for processor in self._processors:
            processor.on_end(span)

    def shutdown(self) -> None:
        for processor in self._processors:
            processor.shutdown()

    def force_flush(self, timeout_millis: int = _FLUSH_MS) -> bool:
        flushed = [processor.force_flush(timeout_millis) for processor in self._processors]
        return all(flushed)


class Tracing:
    """What `configure` set up; `close` sends what is left and takes its processors away again."""

    def __init__(self, destinations: Destinations, processors: tuple[SpanProcessor, ...]) -> None:
        self._destinations = destinations
        self._processors = processors

    def close(self) -> None:
        for processor in self._processors:
            processor.force_flush(_FLUSH_MS)
            self._destinations.remove(processor)
            processor.shutdown()


def configure(service_name: str, *processors: SpanProcessor) -> Tracing:
    """Sends spans to `processors`, and by OTLP where the standard OTEL_ variables name an endpoint.

    A provider that is already there (Ray Serve sets one) is kept and added to. Sampling follows OTEL_TRACES_SAMPLER,
    by default the parent's decision.
    """
    chosen = (*processors, _otlp()) if _otlp_wanted() else processors
    destinations = _destinations(service_name)
    for processor in chosen:
        destinations.add(processor)
    return Tracing(destinations, chosen)


@contextmanager
def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: Context | None = None,
    links: Sequence[SpanContext] = (),
) -> Iterator[Span]:
    """Opens a span below the current one (or `parent`; an empty one makes a root) and makes it current.

    A failure marks it with its class, never with its text. Not for the body of an async generator: what is current
    there becomes current for the consumer too; use `detached_span`.
    """
    with (
        detached_span(name, attributes, kind=kind, parent=parent, links=links) as opened,
        trace.use_span(opened, record_exception=False, set_status_on_exception=False),
    ):
        yield opened


@contextmanager
def detached_span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: Context | None = None,
    links: Sequence[SpanContext] = (),
) -> Iterator[Span]:
    """Like `span`, but the current span stays what it was."""
    opened = trace.get_tracer(_TRACER).start_span(name, parent, kind, attributes, [Link(linked) for linked in links])
    try:
        yield opened
    except BaseException as error:
        mark_failed(opened, error)
        raise
    finally:
        opened.end()


@contextmanager
def of_tenant(tenant: str) -> Iterator[None]:
    """Spans that are opened inside, in this process and those that it calls, say on whose behalf."""
    token = context_api.attach(baggage.set_baggage(names.TENANT, tenant))
    try:
        yield
    finally:
        context_api.detach(token)


def mark_failed(opened: Span, error: BaseException) -> None:
    """Messages stay out: they may quote what a user said. Being closed early is no failure."""
    if isinstance(error, GeneratorExit):
        return
    opened.set_attribute(names.ERROR_TYPE, type(error).__name__)
    opened.set_status(Status(StatusCode.ERROR))


def record(
    name: str,
    start_ns: int,
    end_ns: int,
    attributes: Attributes | None = None,
    *,
    parent: Context | None = None,
    links: Sequence[SpanContext] = (),
) -> Span:
    """A span of something that is already over, below the current one or `parent`; times in nanoseconds since the
    epoch."""
    opened = trace.get_tracer(_TRACER).start_span(
        name, parent, SpanKind.INTERNAL, attributes, [Link(linked) for linked in links], start_time=start_ns
    )
    opened.end(end_ns)
    return opened


def first_event(opened: Span, name: str) -> None:
    """Adds the event now; call it once, at the first output of a stream."""
    opened.add_event(name)


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
    """Headers of HTTP or metadata of gRPC, keys in lower case. Overlong ones would not fit into the next call."""
    bounded = {key: value for key, value in headers.items() if len(value) <= _MAX_HEADER_CHARACTERS}
    return propagate.extract(bounded)


def tenant_of(context: Context) -> str:
    """On whose behalf somebody calls; empty where he does not say, or too much."""
    tenant = baggage.get_baggage(names.TENANT, context)
    return tenant if isinstance(tenant, str) and len(tenant) <= _MAX_TENANT_CHARACTERS else ""


def context_of_client(headers: Mapping[str, str]) -> Context:
    """Of a client, who does not say on whose behalf a span is."""
    return baggage.remove_baggage(names.TENANT, context_from_headers(headers))


def _otlp_wanted() -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(os.environ.get(name) for name in endpoints)


def _otlp() -> SpanProcessor:
    """Endpoint, headers and batching are read from the environment; we only send sooner than its five seconds."""
    delay = None if "OTEL_BSP_SCHEDULE_DELAY" in os.environ else _SEND_EVERY_MS
    return BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=delay)


def _destinations(service_name: str) -> Destinations:
    """The one Destinations of this process; OpenTelemetry lets a provider be set once only."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(resource=_resource(service_name))
        trace.set_tracer_provider(provider)
    known: Destinations | None = getattr(provider, "antiphon_destinations", None)
    if known is None:
        known = Destinations()
        provider.add_span_processor(known)
        provider.antiphon_destinations = known  # type: ignore[attr-defined]
    return known


def _resource(service_name: str) -> Resource:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over ours."""
    ours = {"service.name": service_name, "service.instance.id": f"{socket.gethostname()}:{os.getpid()}"}
    return Resource(ours).merge(Resource.create()) if _named_by_environment() else Resource.create(ours)


def _named_by_environment() -> bool:
    return "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")


def _inherit_tenant(opened: RecordingSpan, parent_context: Context | None) -> None:
    """From the span above, or from the process that calls."""
    parent = trace.get_current_span(parent_context)
    told = (parent.attributes or {}).get(names.TENANT) if isinstance(parent, ReadableSpan) else None
    tenant = told or baggage.get_baggage(names.TENANT, parent_context)
    if isinstance(tenant, str) and len(tenant) <= _MAX_TENANT_CHARACTERS:
        opened.set_attribute(names.TENANT, tenant)


def _inherit_stage(opened: RecordingSpan, parent_context: Context | None) -> None:
    """Spans below a server span belong to its stage; in one process the service name cannot tell them apart."""
    attributes = opened.attributes or {}
    parent = trace.get_current_span(parent_context)
    if names.STAGE in attributes or not isinstance(parent, ReadableSpan):
        return
    stage = (parent.attributes or {}).get(names.STAGE)
    if stage is not None:
        opened.set_attribute(names.STAGE, stage)
