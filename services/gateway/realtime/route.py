"""WS /v1/realtime: lets clients in or tells them why not, before the connection is upgraded."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.trace import Span, SpanKind
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from antiphon.errors import AntiphonError, AtCapacity, Unavailable
from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.limiter import Demand
from services.gateway.http.error_envelope import envelope_of, log_defect, response_of, status_of
from services.gateway.realtime.entry import Entrance, Entry
from services.gateway.realtime.session_setup import Arrival, SessionSetup, dismiss, make_id

PATH: Final = "/v1/realtime"
_TRACE_HEADERS: Final = ("traceparent", "tracestate", "baggage")
_DENIAL: Final = "websocket.http.response"
# Codes of connections that end because of us (RFC 6455 and its registry).
_DEFECT: Final = 1011
_TRY_AGAIN: Final = 1013


@dataclass(slots=True)
class RealtimeRoute:
    entrance: Entrance
    setup: SessionSetup
    metrics: Metrics
    _sessions: int = field(default=0, init=False)

    async def connect(self, websocket: WebSocket) -> None:
        headers = {key: value for key, value in websocket.headers.items() if key in _TRACE_HEADERS}
        request_id = f"req_{uuid.uuid4().hex}"
        attributes = {
            names.HTTP_REQUEST_METHOD: "GET",
            names.HTTP_ROUTE: PATH,
            names.STAGE: "gateway",
            names.REQUEST_ID: request_id,
        }
        parent = tracing.context_of_client(headers)
        with tracing.span(f"GET {PATH}", attributes, kind=SpanKind.SERVER, parent=parent) as span:
            try:
                entry = await self.entrance.enter(
                    websocket.headers, websocket.query_params, websocket.scope.get("subprotocols", [])
                )
                with self._place():
                    await self._serve(websocket, entry, span, request_id)
            except AntiphonError as error:
                await self._refuse(websocket, error, span, request_id)

    async def _serve(self, websocket: WebSocket, entry: Entry, span: Span, request_id: str) -> None:
        session_id = entry.session_id or make_id("sess")
        tenant = entry.terms.caller.tenant
        span.set_attributes(
            {names.GEN_AI_CONVERSATION_ID: session_id, names.HTTP_RESPONSE_STATUS_CODE: 101, names.TENANT: tenant}
        )
        self.setup.turns.gate.require_room(tenant)
        # Taken over first: whoever had the session is then over, and only so his place is free to be had.
        entry, found = await self.setup.resumed(entry)
        demand = Demand(place="session", holder=session_id if self.setup.keeper is not None else "")
        async with self.setup.turns.admission.admit(entry.terms.caller, demand):
            await websocket.accept(entry.subprotocol, [(b"x-request-id", request_id.encode())])
            self.metrics.count_request("gateway", "101")
            await self.setup.serve(websocket, Arrival(entry, session_id, span.get_span_context(), found))

    @contextmanager
    def _place(self) -> Iterator[None]:
        most = self.entrance.settings.concurrent_sessions
        if self._sessions >= most:
            raise AtCapacity(f"The server holds {most} live sessions at once and is full. Try again in a moment.")
        self._sessions += 1
        self.metrics.realtime_sessions.inc()
        try:
            yield
        finally:
            self._sessions -= 1
            self.metrics.realtime_sessions.dec()

    async def _refuse(self, websocket: WebSocket, error: AntiphonError, span: Span, request_id: str) -> None:
        status = status_of(error)
        tracing.mark_failed(span, error)
        span.set_attribute(names.HTTP_RESPONSE_STATUS_CODE, status)
        self.metrics.count_request("gateway", str(status.value))
        if status >= 500 and not isinstance(error, AtCapacity):
            log_defect(error)
        if websocket.application_state is WebSocketState.CONNECTED:
            code = _TRY_AGAIN if isinstance(error, Unavailable | AtCapacity) else _DEFECT
            with suppress(RuntimeError, WebSocketDisconnect):  # the client has left meanwhile
                await dismiss(websocket, make_id("sess"), envelope_of(error).error, code)
        elif _DENIAL in (websocket.scope.get("extensions") or {}):
            response = response_of(error)
            response.headers["x-request-id"] = request_id
            await websocket.send_denial_response(response)
        else:  # a server that knows no answer but 403
            await websocket.close(1008, error.message[:120])
