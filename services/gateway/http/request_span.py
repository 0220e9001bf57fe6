"""What surrounds every request: its id, its span, its headers, its count; and an envelope for what nobody caught."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from opentelemetry.trace import Span, SpanKind
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.telemetry import names, tracing
from antiphon.telemetry.first_packet import FirstPacketClock
from antiphon.telemetry.metrics import Metrics
from services.gateway.http.error_envelope import log_defect, response_of
from services.gateway.http.event_stream import ClientDisconnectedError

_OPENAI_VERSION: Final = "2020-10-01"
# Asked for every few seconds by machines; nobody wants their traces.
_UNTRACED: Final = frozenset({"/health", "/healthz", "/readyz", "/metrics"})
_CLIENT_CLOSED: Final = 499
_TRACE_HEADERS: Final = ("traceparent", "tracestate", "baggage")
_CLOCK: Final = "antiphon.clock"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})


@dataclass(slots=True)
class _Response:
    """What is known of the answer while it leaves."""

    request_id: str
    started_seconds: float
    status: int | None = None

    def sending(self, send: Send) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = self.request_id
                headers["openai-processing-ms"] = str(round((time.perf_counter() - self.started_seconds) * 1e3))
                headers["openai-version"] = _OPENAI_VERSION
            await send(message)

        return send_with_headers


class RequestSpan:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        response = _Response(f"req_{uuid.uuid4().hex}", time.perf_counter())
        if scope["path"] in _UNTRACED:
            return await self._answer(scope, receive, response.sending(send), response, _ignore)
        headers = {key: value for key, value in Headers(scope=scope).items() if key in _TRACE_HEADERS}
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        attributes = {
            names.HTTP_REQUEST_METHOD: method,
            names.STAGE: "gateway",
            names.REQUEST_ID: response.request_id,
        }
        with tracing.span(method, attributes, kind=SpanKind.SERVER, parent=tracing.context_of_client(headers)) as span:
            scope[_CLOCK] = FirstPacketClock()
            await self._answer(scope, receive, response.sending(send), response, lambda e: tracing.mark_failed(span, e))
            _describe(span, scope, method, response.status)
        self._metrics.count_request("gateway", str(response.status))
        return None

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, response: _Response, on_error: Callable[[Exception], None]
    ) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnectedError as error:
            on_error(error)
            response.status = _CLIENT_CLOSED
        except Exception as error:
            on_error(error)
            log_defect(error)
            if response.status is None:
                await response_of(error)(scope, receive, send)


def arrival_clock(scope: Scope) -> FirstPacketClock:
    """Started with the request's span."""
    clock: FirstPacketClock = scope[_CLOCK]
    return clock


def _ignore(_: Exception) -> None:
    return


def _describe(span: Span, scope: Scope, method: str, status: int | None) -> None:
    """The route's template, not the path, which is anyone's to invent."""
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.update_name(f"{method} {route}")
        span.set_attribute(names.HTTP_ROUTE, route)
    if status is not None:
        span.set_attribute(names.HTTP_RESPONSE_STATUS_CODE, status)
