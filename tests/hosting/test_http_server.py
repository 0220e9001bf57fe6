"""An ASGI application on a port of the test's own loop."""

import asyncio
import time
from typing import Any

import httpx
import pytest

from antiphon.errors import Unavailable
from antiphon.hosting.free_port import free_port
from antiphon.hosting.http_server import HttpLimits, serving_http
from antiphon.hosting.metrics_endpoint import serving_metrics
from antiphon.telemetry.metrics import process_metrics


class Application:
    """Answers in two pieces, the second after `release`; refuses to start if told so."""

    def __init__(self, *, can_start: bool = True) -> None:
        self.release = asyncio.Event()
        self.events: list[str] = []
        self._can_start = can_start

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        await self.release.wait()
        await send({"type": "http.response.body", "body": b"second"})
        return None

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            kind = (await receive())["type"]
            self.events.append(kind)
            await send({"type": f"{kind}.complete" if self._can_start else f"{kind}.failed"})
            if kind == "lifespan.shutdown" or not self._can_start:
                return


async def test_a_free_port_is_told_and_answers_stream() -> None:
    application = Application()
    async with (
        serving_http(application, "127.0.0.1", 0) as port,
        httpx.AsyncClient() as client,
        client.stream("GET", f"http://127.0.0.1:{port}/") as response,
    ):
        pieces = response.aiter_bytes()
        assert await anext(pieces) == b"first "
        application.release.set()
        assert b"".join([piece async for piece in pieces]) == b"second"
    assert application.events == ["lifespan.startup", "lifespan.shutdown"]


async def test_a_stop_lets_open_answers_finish() -> None:
    application = Application()
    async with httpx.AsyncClient() as client:
        async with serving_http(application, "127.0.0.1", 0, HttpLimits(drain_seconds=5)) as port:
            answer = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/"))
            await asyncio.sleep(0.2)
            asyncio.get_running_loop().call_later(0.2, application.release.set)
        assert (await answer).text == "first second"


async def test_an_application_that_cannot_start_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unavailable, match="refused to start"):
        async with serving_http(Application(can_start=False), "127.0.0.1", 0):
            pass
    assert caplog.text


async def test_a_taken_port_is_said() -> None:
    async with serving_http(Application(), "127.0.0.1", 0) as port:
        with pytest.raises(Unavailable, match=f"Cannot listen on 127.0.0.1:{port}"):
            async with serving_http(Application(), "127.0.0.1", port):
                pass


async def test_small_pieces_do_not_wait_for_acknowledgements() -> None:
    """With Nagle's delay on, the second of two small writes takes 40 ms."""
    application = Application()
    application.release.set()
    seconds = []
    async with serving_http(application, "127.0.0.1", 0) as port, httpx.AsyncClient() as client:
        for _ in range(10):
            started = time.perf_counter()
            await client.get(f"http://127.0.0.1:{port}/")
            seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.035


async def test_metrics_have_a_port_of_their_own() -> None:
    process_metrics().count_request("talker", "OK")
    port = free_port("127.0.0.1")
    with serving_metrics(port):
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        assert 'antiphon_requests_total{stage="talker",status="OK"}' in text
        with pytest.raises(Unavailable, match=f"port {port}"), serving_metrics(port):
            pass
    with serving_metrics(None):
        pass
