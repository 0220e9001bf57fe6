"""The error family, and every failure of HTTP itself, as OpenAI's envelope; the only place that knows both.

All four keys are always there: {"error": {"message", "type", "param", "code"}}.
"""

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from antiphon import errors
from antiphon.errors import AntiphonError

_log = logging.getLogger(__name__)


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    error: ErrorBody


class RequestTimeoutError(AntiphonError):
    """The client took too long to send its request."""

    code = "request_timeout"


class StillAnsweredError(errors.Conflict):
    """The same request is under way; its answer can be had a little later."""

    code = "idempotency_key_in_use"


class UnprocessableError(AntiphonError):
    """The same key for something else. Not 409, which stock clients try again."""

    code = "idempotency_key_reused"


class UnsupportedMediaTypeError(AntiphonError):
    code = "unsupported_media_type"


_LONGEST_WAIT_SECONDS: Final = 60.0

# The first that fits counts.
_STATUS_OF: Final[tuple[tuple[type[AntiphonError], HTTPStatus], ...]] = (
    (errors.TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (errors.InvalidInput, HTTPStatus.BAD_REQUEST),
    (errors.Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (errors.PermissionDenied, HTTPStatus.FORBIDDEN),
    (errors.NotFound, HTTPStatus.NOT_FOUND),
    (errors.RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (errors.Conflict, HTTPStatus.CONFLICT),
    (UnprocessableError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (RequestTimeoutError, HTTPStatus.REQUEST_TIMEOUT),
    (UnsupportedMediaTypeError, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (errors.AtCapacity, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (errors.DeadlineExceeded, HTTPStatus.GATEWAY_TIMEOUT),
)


def status_of(error: BaseException) -> HTTPStatus:
    found = (status for kind, status in _STATUS_OF if isinstance(error, kind))
    return next(found, HTTPStatus.INTERNAL_SERVER_ERROR)


def envelope_of(error: BaseException) -> ErrorEnvelope:
    """A defect of ours says nothing about itself: its text may quote what a user said."""
    if not isinstance(error, AntiphonError) or isinstance(error, errors.InternalError | errors.CheckpointError):
        return _envelope("The server failed on this request. It is not your fault.", HTTPStatus.INTERNAL_SERVER_ERROR)
    envelope = _envelope(error.message, status_of(error), error.param, error.code)
    if isinstance(error, errors.RateLimited):
        envelope.error.type = error.limited
    elif isinstance(error, errors.PermissionDenied):
        envelope.error.type = "permission_error"
    return envelope


def response_of(error: BaseException) -> Response:
    return _response(envelope_of(error), status_of(error), _retry_headers(error))


def _retry_headers(error: BaseException) -> dict[str, str]:
    """Stock clients wait and try again by themselves, but not as long as this."""
    match error:
        case errors.RateLimited() if error.retry_after_seconds > _LONGEST_WAIT_SECONDS:
            return {"retry-after": str(math.ceil(error.retry_after_seconds)), "x-should-retry": "false"}
        case errors.AtCapacity() | errors.RateLimited():
            return {"retry-after": str(math.ceil(error.retry_after_seconds))}
        case errors.Unavailable() | StillAnsweredError():
            return {"retry-after": "1"}
        case errors.Unauthenticated():
            return {"www-authenticate": "Bearer"}
    return {}


def install_handlers(app: FastAPI) -> None:
    app.add_exception_handler(AntiphonError, _on_known)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_parameters)


def log_defect(error: BaseException) -> None:
    """Frames and class; the log's formatter leaves out the text, which may quote what a user said."""
    _log.error("request failed with %s", type(error).__name__, exc_info=error)


async def _on_known(_: Request, error: Exception) -> Response:
    if status_of(error) >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(error, errors.AtCapacity):
        log_defect(error)
    return response_of(error)


async def _on_http(request: Request, error: Exception) -> Response:
    """404 and 405 of the router."""
    error = cast(HTTPException, error)
    status = HTTPStatus(error.status_code)
    sentences = {
        HTTPStatus.NOT_FOUND: f"Unknown URL: {request.method} {request.url.path[:64]}.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not allowed here.",
    }
    message = sentences.get(status, f"{status.phrase}.")
    return _response(_envelope(message, status, code=_http_code(status)), status, error.headers)


async def _on_parameters(_: Request, error: Exception) -> Response:
    first = cast(RequestValidationError, error).errors()[0]
    param = ".".join(str(step) for step in first["loc"][1:]) or None
    return response_of(errors.InvalidInput(f"Invalid value for '{param}': {first['msg']}.", param=param))


def _http_code(status: HTTPStatus) -> str:
    return {HTTPStatus.NOT_FOUND: "unknown_url"}.get(status, status.name.lower())


def _envelope(message: str, status: HTTPStatus, param: str | None = None, code: str | None = None) -> ErrorEnvelope:
    kind = "invalid_request_error" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        code = "internal_error"
    return ErrorEnvelope(error=ErrorBody(message=message, type=kind, param=param, code=code))


def _response(envelope: ErrorEnvelope, status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Response:
    return Response(envelope.model_dump_json(), status, headers, media_type="application/json")
