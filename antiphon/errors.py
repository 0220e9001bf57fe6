"""The one family of errors of the platform.

    AntiphonError
    ├── InvalidInput            the caller's request is wrong and will stay wrong (HTTP 400, gRPC INVALID_ARGUMENT)
    │   ├── UnreadableMedia     a sound, image or video that cannot be decoded
    │   ├── ContextTooLong      prompt and answer do not fit into the model's context
    │   └── TooLarge            a body or medium above its bound (HTTP 413, gRPC OUT_OF_RANGE)
    ├── Unauthenticated         no key, or one that does not hold (HTTP 401, gRPC UNAUTHENTICATED)
    ├── PermissionDenied        the key does not allow this (HTTP 403, gRPC PERMISSION_DENIED)
    ├── NotFound                a model, voice or other thing that does not exist (HTTP 404, gRPC NOT_FOUND)
    ├── Conflict                somebody else changed or took over the thing meanwhile (HTTP 409, gRPC ABORTED)
    ├── RateLimited             the tenant has used up what it may (HTTP 429 + Retry-After, gRPC RESOURCE_EXHAUSTED)
    ├── AtCapacity              every queue is full; try again soon (HTTP 503 + Retry-After, gRPC RESOURCE_EXHAUSTED)
    ├── Unavailable             a stage cannot be reached or is stopping (HTTP 503, gRPC UNAVAILABLE)
    ├── DeadlineExceeded        the request's time is over (HTTP 504, gRPC DEADLINE_EXCEEDED)
    ├── CheckpointError         a checkpoint that lacks what a role needs, or does not fit (at start-up only)
    └── InternalError           a defect of ours (HTTP 500, gRPC INTERNAL)

Each says what was expected, what came and what to do. They are raised where the fault is noticed and translated once,
at the border: `antiphon.wire.errors` to gRPC status, `services.gateway.http.error_envelope` to OpenAI's envelope.
"""

from typing import Final, Literal


class AntiphonError(Exception):
    """Root of the family.

    message: one sentence or two for the reader; never holds secrets or another tenant's data.
    code: OpenAI's error code, such as "invalid_value".
    param: the request field at fault, such as "audio.voice", or None.
    """

    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class InvalidInput(AntiphonError):
    code = "invalid_value"


class UnreadableMedia(InvalidInput):
    code = "invalid_media"


class ContextTooLong(InvalidInput):
    code = "context_length_exceeded"


class TooLarge(InvalidInput):
    code = "too_large"


class Unauthenticated(AntiphonError):
    code = "invalid_api_key"


class PermissionDenied(AntiphonError):
    code = "permission_denied"


class NotFound(AntiphonError):
    code = "not_found"


class RateLimited(AntiphonError):
    """limited: what ran out, in the words of OpenAI's clients. retry_after_seconds: when as much is there again."""

    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, retry_after_seconds: float = 1.0, limited: Literal["requests", "tokens"] = "requests"
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.limited = limited


class Conflict(AntiphonError):
    code = "conflict"


class AtCapacity(AntiphonError):
    """retry_after_seconds: when it is sensible to try again."""

    code = "at_capacity"

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(AntiphonError):
    code = "unavailable"


# Of an Unavailable: the replica broke under its requests, one of which may be why.
REPLICA_BROKEN: Final = "replica_broken"


def broken(name: str) -> Unavailable:
    """For the requests of a replica that can never answer again, such as one that has lost its device."""
    return Unavailable(f"The {name} broke before this request had ended. Send it again.", code=REPLICA_BROKEN)


class DeadlineExceeded(AntiphonError):
    code = "deadline_exceeded"


class CheckpointError(AntiphonError):
    code = "checkpoint"


class InternalError(AntiphonError):
    code = "internal_error"
