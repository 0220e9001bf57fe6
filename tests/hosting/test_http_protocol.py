"""What a connection may send before it is a request, and how long it may leave an answer unread."""

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from antiphon.hosting.http_server import ConnectionRoom, HttpLimits, room_for, serving_http

LIMITS = HttpLimits(drain_seconds=1, idle_connection_seconds=1, header_bytes=10_000, unread_seconds=1)
FULL = b"GET / HTTP/1.1\r\nhost: x\r\n"


class Application:
    """Answers `pieces` pieces of 64 KiB; `left` when its client is gone."""

    def __init__(self) -> None:
        self.pieces = 1
        self.left = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        answering = asyncio.create_task(self._answer(send))
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()
        answering.cancel()
        return None

    async def _answer(self, send: Any) -> None:
        for _ in range(self.pieces):
            await send({"type": "http.response.body", "body": b"x" * (1 << 16), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while (kind := (await receive())["type"]) != "lifespan.shutdown":
            await send({"type": f"{kind}.complete"})
        await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
async def port(application: Application) -> AsyncIterator[int]:
    async with serving_http(application, "127.0.0.1", 0, LIMITS) as port:
        yield port


async def answer_to(port: int, *pieces: bytes) -> bytes:
    """All that comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def assert_refused(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"connection: close" in head
    assert (b"retry-after: 1" in head) is (status == 503)
    error = json.loads(body)["error"]
    kind = "invalid_request_error" if status < 500 else "server_error"
    assert (error["type"], error["param"], error["code"]) == (kind, None, code)
    assert len(error["message"]) > 20


@pytest.mark.parametrize(
    "junk", [b"hello\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", FULL + b"content-length: -1\r\n\r\n"]
)
async def test_what_is_no_http_is_refused_in_the_apis_form(port: int, junk: bytes) -> None:
    assert_refused(await answer_to(port, junk), 400, "bad_request")


async def test_a_body_that_is_no_http_is_refused_too(port: int) -> None:
    answer = await answer_to(port, FULL + b"transfer-encoding: chunked\r\n\r\n", b"zzz\r\n")
    assert_refused(answer, 400, "bad_request")


@pytest.mark.parametrize(
    "pieces",
    [
        [FULL + b"a: ", *[b"b" * 5_000] * 2],
        [FULL, *[b"a: b\r\n" * 1_000] * 2],
        [b"GET /", *[b"a" * 5_000] * 2],
    ],
    ids=["a long header", "many headers", "a long line"],
)
async def test_a_head_without_end_is_refused(port: int, pieces: list[bytes]) -> None:
    assert_refused(await answer_to(port, *pieces), 431, "request_header_fields_too_large")


async def test_a_head_that_never_ends_is_refused_in_time(port: int) -> None:
    assert_refused(await answer_to(port, FULL), 408, "request_timeout")


async def test_a_connection_without_a_request_is_closed(port: int) -> None:
    assert await answer_to(port) == b""


async def test_a_body_may_be_longer_than_a_head(port: int, application: Application) -> None:
    body = b"a" * 50_000
    request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    answer = await answer_to(port, request, body[:20_000], body[20_000:])
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux tells when nobody reads")
@pytest.mark.parametrize("reads_a_byte", [False, True])
async def test_a_client_that_does_not_read_is_gone(port: int, application: Application, *, reads_a_byte: bool) -> None:
    application.pieces = 10_000
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(FULL + b"\r\n")
        async with asyncio.timeout(20):
            while not application.left.is_set():
                await asyncio.sleep(0.1)
                if reads_a_byte and not application.left.is_set():
                    client.recv(1)


async def test_connections_are_bounded_and_places_come_back(application: Application) -> None:
    limits = HttpLimits(drain_seconds=1, connections=2)
    async with serving_http(application, "127.0.0.1", 0, limits) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert_refused(await answer_to(port), 503, "at_capacity")
        for index, (reader, writer) in enumerate(held):
            writer.write(FULL + b"connection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 "), index
            writer.close()
        await asyncio.sleep(0.05)
        assert (await answer_to(port, FULL + b"connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("open_files", "room"),
    [
        (100_000, ConnectionRoom(4096, 1024)),
        (1024 + 256 + 4096, ConnectionRoom(4096, 1024)),
        (1024, ConnectionRoom(384, 384)),
        (10, ConnectionRoom(1, 1)),
    ],
)
def test_connections_leave_files_to_everything_else(open_files: int, room: ConnectionRoom) -> None:
    assert ConnectionRoom.within(HttpLimits(), open_files) == room


def test_files_are_asked_for_as_far_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.setrlimit", lambda _, limits: asked.append(limits))
    for allowed in ((1024, 524_288), (1024, 2048), (65_536, 65_536), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)):
        monkeypatch.setattr("resource.getrlimit", lambda _, allowed=allowed: allowed)
        assert room_for(HttpLimits()).connections == (896 if allowed[1] == 2048 else 4096)
    assert asked == [(5376, 524_288), (2048, 2048)]
