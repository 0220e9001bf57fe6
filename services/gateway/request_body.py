"""A request's body: bounded in size and time while it arrives, parsed without holding other turns up."""

import asyncio
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from antiphon.errors import InvalidInput, TooLarge
from services.gateway.config import GatewaySettings
from services.gateway.error_envelope import RequestTimeoutError, UnsupportedMediaTypeError, invalid_body
from services.gateway.event_stream import ClientDisconnectedError

_Body = TypeVar("_Body", bound=BaseModel)

# Shorter bodies are parsed at once, longer ones in a thread.
_INLINE_BYTES: Final = 1 << 16
# A client reads an answer only after it has sent its body, so a too large one is read on, unkept, up to this multiple.
_READ_ON: Final = 4


async def read_json(request: Request, kind: type[_Body], settings: GatewaySettings) -> _Body:
    _check_media_type(request)
    body = await _read(request, settings)
    if not body or body.isspace():
        raise InvalidInput("The body is empty; expected a JSON object.", code="invalid_json")
    if len(body) <= _INLINE_BYTES:
        return _parse(kind, body)
    return await asyncio.to_thread(_parse, kind, body)


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaTypeError(
            f"Expected 'Content-Type: application/json'; got '{media_type[:64]}'.", param=None
        )


async def _read(request: Request, settings: GatewaySettings) -> bytearray:
    body = bytearray()
    size, limit = 0, settings.body_bytes
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    body += chunk
                elif size > _READ_ON * limit:
                    break
    except TimeoutError:
        raise RequestTimeoutError(f"The body did not arrive within {settings.body_seconds:g} s.") from None
    except ClientDisconnect:
        raise ClientDisconnectedError from None
    if size > limit:
        raise TooLarge(f"The body is too large: at most {limit} bytes.", code="request_too_large")
    return body


def _parse(kind: type[_Body], body: bytearray) -> _Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise invalid_body(error, body) from None
