"""Every request under /v1 has a caller before anything else looks at it: no route can forget to ask for a key."""

from contextlib import suppress
from typing import Final

from opentelemetry import trace
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.errors import AntiphonError
from antiphon.telemetry import names, tracing
from antiphon.tenancy.caller import Caller
from services.gateway.admission import Admission
from services.gateway.http.error_envelope import log_defect, response_of, status_of
from services.gateway.http.rate_limit_headers import add_standing

_PREFIX: Final = "/v1/"
_CALLER: Final = "antiphon.caller"


class Identified:
    """ASGI middleware. Live connections identify themselves, since browsers bring their key in another header."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app, self._admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(_PREFIX):
            return await self._app(scope, receive, send)
        try:
            caller = scope[_CALLER] = await self._admission.identify(Headers(scope=scope))
        except AntiphonError as error:
            if status_of(error) >= 500:
                log_defect(error)
            return await response_of(error)(scope, receive, send)
        trace.get_current_span().set_attribute(names.TENANT, caller.tenant)
        with tracing.of_tenant(caller.tenant):
            return await self._app(scope, receive, self._telling(caller, send))

    def _telling(self, caller: Caller, send: Send) -> Send:
        """Every answer says what is left, refusals too."""

        async def send_with_standing(message: Message) -> None:
            if message["type"] == "http.response.start":
                with suppress(AntiphonError):
                    add_standing(MutableHeaders(scope=message), await self._admission.standing(caller))
            await send(message)

        return send_with_standing


def caller_of(scope: Scope) -> Caller:
    """Of a request under /v1."""
    caller: Caller = scope[_CALLER]
    return caller
