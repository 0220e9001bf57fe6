"""Receives spans by OTLP over gRPC, as any OpenTelemetry exporter sends them."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from antiphon.errors import Unavailable
from antiphon.telemetry.span_records import AttributeScalar, EventRecord, SpanKindName, SpanRecord

_SERVICE: Final = trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name
_MAX_BATCH_BYTES: Final = 16 << 20
_STOP_SECONDS: Final = 0.5
_KINDS: Final[dict[int, SpanKindName]] = {
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
}


@asynccontextmanager
async def receiving(listen: str, on_spans: Callable[[Sequence[SpanRecord]], None]) -> AsyncIterator[int]:
    """Listens on "host:port" and gives the real port."""

    async def export(request: ExportTraceServiceRequest, _context: Any) -> ExportTraceServiceResponse:
        on_spans(records_of(request))
        return ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _MAX_BATCH_BYTES), ("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": handler}),))
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise Unavailable(f"Cannot listen on {listen}; is a collector running there already?") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(_STOP_SECONDS)


def records_of(request: ExportTraceServiceRequest) -> list[SpanRecord]:
    return [
        _record(span, str(_attributes(batch.resource.attributes).get("service.name", "")))
        for batch in request.resource_spans
        for scope in batch.scope_spans
        for span in scope.spans
    ]


def _record(span: Span, service: str) -> SpanRecord:
    return SpanRecord(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() or None,
        name=span.name,
        service=service,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        kind=_KINDS.get(span.kind, "internal"),
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        attributes=_attributes(span.attributes),
        events=tuple(EventRecord(event.name, event.time_unix_nano) for event in span.events),
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, AttributeScalar]:
    return {pair.key: _scalar(pair.value) for pair in pairs}


def _scalar(value: AnyValue) -> AttributeScalar:
    kind = value.WhichOneof("value")
    if kind in ("string_value", "bool_value", "int_value", "double_value"):
        found: AttributeScalar = getattr(value, kind)
        return found
    return str(value).strip()
