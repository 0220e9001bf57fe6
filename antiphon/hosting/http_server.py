"""An ASGI application on a port of this event loop, beside whatever else runs there."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, cast

import uvicorn
from starlette.types import ASGIApp

from antiphon.errors import Unavailable
from antiphon.hosting.http_protocol import BoundedHttpProtocol

_BACKLOG: Final = 1024


# Open files that connections leave to everything else: weights, stages, children.
_OTHER_FILES: Final = 256


@dataclass(frozen=True, slots=True)
class HttpLimits:
    # At one time, and never more than the process may open files.
    connections: int = 4096
    # Answers that are still being streamed may go on for so long after a stop was asked for.
    drain_seconds: int = 30
    # Without a request, and until the head of one is whole.
    idle_connection_seconds: int = 75
    header_bytes: int = 64 << 10
    # A client that takes nothing of an answer for so long is gone, though its connection is not.
    unread_seconds: int = 60
    web_socket_message_bytes: int = 32 << 20  # 15 MiB of sound are 20 MiB of base64


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.startup_over = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process, not to one of its servers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn would leave the process, which is not its own."""
        try:
            await super().startup(sockets)
        except SystemExit as error:
            raise Unavailable("The HTTP application refused to start; its log says why.") from error
        finally:
            self.startup_over.set()


@asynccontextmanager
async def serving_http(app: ASGIApp, host: str, port: int, limits: HttpLimits | None = None) -> AsyncIterator[int]:
    """Gives the real port once requests are accepted (port 0 takes a free one); at the end drains."""
    bounds = limits or HttpLimits()
    room = room_for(bounds)
    with _bound(host, port, bounds, room) as bound:
        server = _Server(_config(app, bounds, room))
        running = asyncio.create_task(server.serve(sockets=[bound]), name="http")
        try:
            await server.startup_over.wait()
            if not server.started:
                await running  # raises why
            yield bound.getsockname()[1]
        finally:
            server.should_exit = True
            if not running.done():
                await running


@dataclass(frozen=True, slots=True)
class ConnectionRoom:
    """For connections that are answered, and for those that are accepted in one go before any can be refused."""

    connections: int
    backlog: int

    @classmethod
    def within(cls, limits: HttpLimits, open_files: int) -> "ConnectionRoom":
        left = max(open_files - _OTHER_FILES, 2)
        backlog = min(_BACKLOG, left // 2)
        return cls(min(limits.connections, left - backlog), backlog)


def room_for(limits: HttpLimits) -> ConnectionRoom:
    """asyncio's server, once it cannot open a file for a connection, fills its log and answers nobody; so the process
    is allowed as many open files as it may ask for and needs, and takes no more connections than fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _BACKLOG + _OTHER_FILES
    if resource.RLIM_INFINITY in (soft, hard):
        return ConnectionRoom.within(limits, wanted)
    if soft < wanted:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return ConnectionRoom.within(limits, soft)


def _config(app: ASGIApp, limits: HttpLimits, room: ConnectionRoom) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], partial(BoundedHttpProtocol, most_connections=room.connections)),
        backlog=room.backlog,
        log_config=None,
        access_log=False,  # a span tells more
        server_header=False,
        timeout_keep_alive=limits.idle_connection_seconds,
        timeout_graceful_shutdown=limits.drain_seconds,
        h11_max_incomplete_event_size=limits.header_bytes,
        ws_max_size=limits.web_socket_message_bytes,
        # Sound in base64 hardly shrinks, and trying to takes a third of the CPU time of a live session.
        ws_per_message_deflate=False,
    )


@contextmanager
def _bound(host: str, port: int, limits: HttpLimits, room: ConnectionRoom) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's delay off only where the protocol is named; else small events wait 40 ms for an ACK.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted sockets inherit it
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limits.unread_seconds * 1000)
        try:
            bound.bind((host, port))
        except OSError as error:
            raise Unavailable(f"Cannot listen on {host}:{port}: {error.strerror}.") from error
        bound.listen(room.backlog)
        yield bound
