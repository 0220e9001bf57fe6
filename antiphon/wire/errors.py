"""The error family as gRPC statuses and back; nothing else translates between the two.

The class, the code, the field at fault and the time to wait travel in trailing metadata, because a status alone cannot
tell UnreadableMedia from ContextTooLong.
"""

import logging
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, unquote

import grpc

from antiphon import errors
from antiphon.errors import AntiphonError, AtCapacity, InternalError, RateLimited

_LOG = logging.getLogger(__name__)

TYPE_KEY: Final = "antiphon-error-type"
CODE_KEY: Final = "antiphon-error-code"
PARAM_KEY: Final = "antiphon-error-param"
RETRY_AFTER_KEY: Final = "antiphon-error-retry-after-seconds"

# Message and param share MAX_METADATA_BYTES of a channel, and a character may take twelve bytes there.
MAX_DETAILS_CHARACTERS: Final = 1024

_STATUS_OF: Final[dict[type[AntiphonError], grpc.StatusCode]] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnreadableMedia: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ContextTooLong: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TooLarge: grpc.StatusCode.OUT_OF_RANGE,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.AtCapacity: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.CheckpointError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}
_CLASS_NAMED: Final = {kind.__name__: kind for kind in _STATUS_OF}
# A status without our metadata comes from gRPC itself or from a proxy between.
_CLASS_OF: Final[dict[grpc.StatusCode, type[AntiphonError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: errors.TooLarge,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.AtCapacity,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.CANCELLED: errors.Unavailable,  # not by us: the server gave the call up
    grpc.StatusCode.ABORTED: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}

_WHAT_HAPPENED: Final[dict[type[AntiphonError], str]] = {
    AtCapacity: "The {called} stage is full. Try again in a moment.",
    errors.Unavailable: "The {called} stage cannot be reached. Try again in a moment.",
    errors.DeadlineExceeded: "The {called} stage did not answer in time. Ask for less, or try again.",
}

Metadata = tuple[tuple[str, str], ...]


def status_of(error: AntiphonError) -> grpc.StatusCode:
    for kind in type(error).__mro__:
        if kind in _STATUS_OF:
            return _STATUS_OF[kind]
    return grpc.StatusCode.INTERNAL


def details_of(error: AntiphonError) -> str:
    return error.message[:MAX_DETAILS_CHARACTERS]


def metadata_of(error: AntiphonError) -> Metadata:
    """What the status cannot say; values are percent-encoded, since metadata is ASCII."""
    pairs = [(TYPE_KEY, _wire_name(error))]
    if error.code:
        pairs.append((CODE_KEY, quote(error.code)))
    if error.param:
        pairs.append((PARAM_KEY, quote(error.param[:MAX_DETAILS_CHARACTERS], safe="[]")))
    if isinstance(error, AtCapacity | RateLimited):
        pairs.append((RETRY_AFTER_KEY, f"{error.retry_after_seconds:g}"))
    return tuple(pairs)


def from_rpc_error(error: grpc.aio.AioRpcError, *, called: str, level: int = logging.WARNING) -> AntiphonError:
    """`called` names the stage for the reader, such as "talker". level: at which a status without an error of ours is
    logged."""
    told = _texts(error.trailing_metadata())
    message = error.details() or f"The {called} stage failed with {error.code().name}."
    kind = _CLASS_NAMED.get(told.get(TYPE_KEY, ""))
    if kind is None:
        _LOG.log(level, "The %s stage answered %s: %s", called, error.code().name, message)
        return _from_bare_status(error.code(), message, called)
    if issubclass(kind, AtCapacity | RateLimited):
        return kind(message, retry_after_seconds=_seconds(told.get(RETRY_AFTER_KEY)))
    param = told.get(PARAM_KEY)
    return kind(message, param=unquote(param) if param else None, code=unquote(told.get(CODE_KEY, "")) or None)


def family_member(error: BaseException) -> AntiphonError | None:
    """The error itself, or the first of ours inside an exception group; None when it is a defect."""
    return next(_family_members(error), None)


def _family_members(error: BaseException) -> Iterator[AntiphonError]:
    if isinstance(error, AntiphonError):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _family_members(inner)


def _from_bare_status(status: grpc.StatusCode, details: str, called: str) -> AntiphonError:
    """gRPC's own details may hold addresses: they are the operator's to read, not the caller's."""
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return errors.TooLarge(f"A message to or from the {called} stage is too large. Send less.")
    kind = _CLASS_OF.get(status, InternalError)
    return kind(f"{_WHAT_HAPPENED.get(kind, 'The {called} stage failed.').format(called=called)} ({status.name})")


def _texts(metadata: Any) -> dict[str, str]:
    """gRPC's own types call its metadata not iterable, wrongly; binary values are not ours."""
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def _wire_name(error: AntiphonError) -> str:
    return next((kind.__name__ for kind in type(error).__mro__ if kind in _STATUS_OF), InternalError.__name__)


def _seconds(text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError:
        return 1.0
