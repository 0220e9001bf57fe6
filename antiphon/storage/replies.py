"""A reply of Redis as the type that the command promises."""

from antiphon.errors import InternalError
from antiphon.storage.connection import Reply


def integer(reply: Reply) -> int:
    if not isinstance(reply, int):
        raise _unexpected("an integer", reply)
    return reply


def data(reply: Reply) -> bytes:
    if not isinstance(reply, bytes):
        raise _unexpected("bytes", reply)
    return reply


def array(reply: Reply) -> list[Reply]:
    if not isinstance(reply, list):
        raise _unexpected("an array", reply)
    return reply


def _unexpected(expected: str, reply: Reply) -> InternalError:
    return InternalError(f"Redis: expected {expected}; came {type(reply).__name__}.")
