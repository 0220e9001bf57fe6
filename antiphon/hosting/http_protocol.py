"""One HTTP connection among so many: its heads bounded in size and time, what is no HTTP refused in the API's form."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's, which takes a head of any length for any time; its bounds for h11 and for idleness hold here too."""

    def __init__(self, *arguments: Any, most_connections: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._most_connections = most_connections
        self._head_bytes = 0
        # Runs while a head, or the first byte of one, is waited for.
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) <= self._most_connections:
            return self._begin_head()
        self.connections.discard(self)
        return self._refuse(
            HTTPStatus.SERVICE_UNAVAILABLE, "The server has as many connections as it may. Try again in a moment."
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes += len(data)
        most = self.config.h11_max_incomplete_event_size
        if self._head_timer is not None and most is not None and self._head_bytes > most:
            message = f"The request's line and headers are too large: at most {most} bytes."
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, message)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's own text, always the same)
        self._refuse(HTTPStatus.BAD_REQUEST, "This is no HTTP/1.1 request that can be understood.")

    def _begin_head(self) -> None:
        self._end_head()
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.config.timeout_keep_alive, self._late)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _late(self) -> None:
        if self._head_bytes:
            seconds = self.config.timeout_keep_alive
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"The request's headers did not arrive within {seconds:g} s.")
        else:
            self.transport.close()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Not into an answer that is still being written."""
        self._end_head()
        if self.transport.is_closing():
            return
        cycle: Any = self.cycle  # None before the first request
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(_refusal(status, message))
        self.transport.close()


def _refusal(status: HTTPStatus, message: str) -> bytes:
    is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    error = {
        "message": message,
        "type": "server_error" if is_ours else "invalid_request_error",
        "param": None,
        "code": "at_capacity" if is_ours else status.name.lower(),
    }
    body = json.dumps({"error": error}).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n{'retry-after: 1' if is_ours else ''}"
    )
    return f"{head.rstrip()}\r\n\r\n".encode() + body
