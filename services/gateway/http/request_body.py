"""A request's body: bounded in size, time and what it unfolds to, parsed without holding other turns up."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from antiphon.errors import AtCapacity, InvalidInput, TooLarge
from antiphon.tenancy.caller import ANONYMOUS_TENANT
from services.gateway.config import GatewaySettings
from services.gateway.http.error_envelope import RequestTimeoutError, UnsupportedMediaTypeError
from services.gateway.http.event_stream import ClientDisconnectedError
from services.gateway.http.invalid_body import invalid_body

_Body = TypeVar("_Body", bound=BaseModel)

# Shorter bodies are parsed at once, longer ones in a thread.
_INLINE_BYTES: Final = 1 << 16
# A client reads an answer only after it has sent its body, so a too large one is read on, unkept, up to this multiple.
_READ_ON: Final = 4
# One in so many bytes of all is kept for those who hold little.
_KEPT: Final = 8
# Each opens or separates a value. Base64 has none of them, texts have few.
_VALUE_MARKS: Final = (b",", b"[", b"{")


class BodyRoom:
    """Bytes of bodies that all requests together may hold: what a body became stays until its turn has ended.

    The last eighth is for tenants that hold less than that, so that nobody's uploads keep all others out. Callers
    without a key are one tenant, and alone.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._left_bytes = settings.held_body_bytes
        self._kept_bytes = settings.held_body_bytes // _KEPT
        self._of_tenants: Counter[str] = Counter()
        self._retry_after_seconds = settings.retry_after_seconds

    @contextmanager
    def share(self, tenant: str) -> Iterator["BodyShare"]:
        """Of one request; given back when the block is left."""
        share = BodyShare(self, tenant)
        try:
            yield share
        finally:
            self._left_bytes += share.byte_count
            self._of_tenants -= Counter({tenant: share.byte_count})

    def take(self, tenant: str, byte_count: int) -> None:
        if byte_count > self._left_bytes - self._kept_from(tenant, byte_count):
            raise AtCapacity(
                "The server holds all the requests' bodies that it may. Try again in a moment.",
                retry_after_seconds=self._retry_after_seconds,
            )
        self._left_bytes -= byte_count
        self._of_tenants[tenant] += byte_count

    def _kept_from(self, tenant: str, byte_count: int) -> int:
        is_small = self._of_tenants[tenant] + byte_count <= self._kept_bytes
        return 0 if tenant == ANONYMOUS_TENANT or is_small else self._kept_bytes


class BodyShare:
    def __init__(self, room: BodyRoom, tenant: str) -> None:
        self._room, self._tenant, self.byte_count = room, tenant, 0

    def grow(self, byte_count: int) -> None:
        """Raises AtCapacity."""
        self._room.take(self._tenant, byte_count)
        self.byte_count += byte_count


async def read_json(request: Request, kind: type[_Body], settings: GatewaySettings, share: BodyShare) -> _Body:
    _check_media_type(request)
    body = await read_body(request, settings, share)
    if not body or body.isspace():
        raise InvalidInput("The body is empty; expected a JSON object.", code="invalid_json")
    if len(body) <= _INLINE_BYTES:
        return parse(kind, body)
    _check_values(body, settings.body_values)
    return await asyncio.to_thread(parse, kind, body)


def _check_media_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise UnsupportedMediaTypeError(
            f"Expected 'Content-Type: application/json'; got '{media_type[:64]}'.", param=None
        )


async def read_body(request: Request, settings: GatewaySettings, share: BodyShare) -> bytearray:
    """Raises TooLarge, AtCapacity, RequestTimeoutError or ClientDisconnectedError."""
    body = bytearray()
    size, limit = 0, min(settings.body_bytes, settings.held_body_bytes)
    if _is_refused_unread(request, limit):
        raise _too_large(limit)
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    share.grow(len(chunk))
                    body += chunk
                elif size > _READ_ON * limit:
                    break
    except TimeoutError:
        raise RequestTimeoutError(f"The body did not arrive within {settings.body_seconds:g} s.") from None
    except ClientDisconnect:
        raise ClientDisconnectedError from None
    if size > limit:
        raise _too_large(limit)
    return body


def _is_refused_unread(request: Request, limit: int) -> bool:
    """Its announced size is beyond what is read on, or its client asks before it sends anything."""
    announced = request.headers.get("content-length", "")
    size = int(announced[:18]) if announced.isdecimal() else 0
    return size > _READ_ON * limit or (size > limit and "expect" in request.headers)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is too large: at most {limit} bytes.", code="request_too_large")


def _check_values(body: bytearray, most: int) -> None:
    """A byte or two may become an object of hundreds, so values are bounded before they are made."""
    marks = sum(map(body.count, _VALUE_MARKS))
    if marks > most:
        raise TooLarge(
            f"The body holds too many values: at most {most} commas and opening brackets, in texts too; got {marks}.",
            code="request_too_large",
        )


def parse(kind: type[_Body], body: bytearray) -> _Body:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise invalid_body(error, body) from None
