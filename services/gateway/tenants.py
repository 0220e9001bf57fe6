"""Every request under /v1 has a caller before anything else looks at it: no route can forget to ask for a key."""

from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from antiphon.errors import AntiphonError
from antiphon.tenancy.caller import Caller
from services.gateway.admission import Admission
from services.gateway.error_envelope import response_of

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
            scope[_CALLER] = await self._admission.identify(Headers(scope=scope))
        except AntiphonError as error:
            return await response_of(error)(scope, receive, send)
        return await self._app(scope, receive, send)


def caller_of(scope: Scope) -> Caller:
    """Of a request under /v1."""
    caller: Caller = scope[_CALLER]
    return caller
