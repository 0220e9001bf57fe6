"""A digest of a request as it is sent: the same for a form that is built anew, whose parts another boundary divides."""

from hashlib import sha256

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.types import Scope


class BodyDigest:
    def __init__(self, scope: Scope) -> None:
        self._whole = sha256(scope["path"].encode() + b"?" + scope["query_string"] + b"\0")
        # Of what lies between two boundaries; of all where there are none.
        self._part = sha256()
        boundary = _boundary(scope)
        self._divider = b"--" + boundary if boundary else b""
        # May be the beginning of a divider.
        self._held = b""

    def update(self, data: bytes) -> None:
        if not self._divider:
            self._part.update(data)
            return
        *parts, rest = (self._held + data).split(self._divider)
        for part in parts:
            self._part.update(part)
            self._end_part()
        sure = max(0, len(rest) - len(self._divider) + 1)
        self._part.update(rest[:sure])
        self._held = rest[sure:]

    def hexdigest(self) -> str:
        """Once all of it is there."""
        self._part.update(self._held)
        self._held = b""
        self._end_part()
        return self._whole.hexdigest()

    def _end_part(self) -> None:
        self._whole.update(self._part.digest())
        self._part = sha256()


def _boundary(scope: Scope) -> bytes:
    kind, options = parse_options_header(Headers(scope=scope).get("content-type"))
    return options.get(b"boundary", b"") if kind == b"multipart/form-data" else b""
