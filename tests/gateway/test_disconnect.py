"""A client that hangs up, at whatever moment, stops every stage at once; a raw socket shows it."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, assert_envelope, body, spoken


async def send(
    base_url: str, request: dict[str, Any], authorization: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    content = json.dumps(request).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nAuthorization: {authorization}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    await writer.drain()
    return reader, writer


async def until_open(fakes: Fakes, calls: int) -> None:
    async with asyncio.timeout(5):
        while fakes.open_calls < calls:  # noqa: ASYNC110 - fakes have no event for this
            await asyncio.sleep(0.002)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    await asyncio.sleep(0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stage", ["encoders", "thinker", "talker", "codec"])
async def test_hanging_up_closes_a_stage_that_works(base_url: str, fakes: Fakes, stage: str, stream: bool) -> None:
    getattr(fakes, stage).behaviour.pause_seconds = 30
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    _, writer = await send(base_url, spoken([part], stream=stream))
    await until_open(fakes, 1)
    await asyncio.sleep(0.05)
    assert fakes.open_calls
    await hang_up(writer)
    await fakes.until_closed()
    assert getattr(fakes, stage).behaviour.calls_finished == 0


async def test_hanging_up_in_mid_stream(base_url: str, fakes: Fakes) -> None:
    fakes.talker.behaviour.pause_seconds = 0.05
    fakes.talker.frames_after_text = 1000
    reader, writer = await send(base_url, spoken(stream=True))
    received = b""
    while b'"data":"' not in received:
        received += await reader.read(4096)
    await hang_up(writer)
    await fakes.until_closed()
    assert fakes.talker.behaviour.calls_finished == 0


async def test_hanging_up_while_the_body_is_sent(base_url: str, fakes: Fakes) -> None:
    url = urlsplit(base_url)
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000\r\n\r\n{"
    )
    await writer.drain()
    await asyncio.sleep(0.02)
    await hang_up(writer)
    async with httpx.AsyncClient(base_url=base_url) as client:
        assert (await client.post("/v1/chat/completions", json=body())).status_code == 200


async def test_a_client_that_stops_reading_holds_the_stages_back(base_url: str, fakes: Fakes) -> None:
    fakes.talker.frames_after_text = 20_000
    _, writer = await send(base_url, spoken(stream=True))
    await until_open(fakes, 2)
    sent = -1
    async with asyncio.timeout(20):
        while sent != (sent := len(fakes.codec.behaviour.received)):  # noqa: ASYNC110 - until it stands still
            await asyncio.sleep(0.3)
    assert sent < 10_000
    await hang_up(writer)
    await fakes.until_closed()


class TestCapacity:
    @pytest.fixture
    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        return settings.model_copy(update={"concurrent_turns": 2, "retry_after_seconds": 3})

    async def test_one_too_many_is_refused_at_once(self, base_url: str, fakes: Fakes) -> None:
        fakes.thinker.behaviour.pause_seconds = 30
        writers = [(await send(base_url, body(stream=True)))[1] for _ in range(2)]
        await until_open(fakes, 2)
        async with httpx.AsyncClient(base_url=base_url) as client:
            response = await client.post("/v1/chat/completions", json=body())
            assert_envelope(response, 503, code="at_capacity")
            assert response.headers["retry-after"] == "3"
            for writer in writers:
                await hang_up(writer)
            await fakes.until_closed()
            fakes.thinker.behaviour.pause_seconds = 0
            assert (await client.post("/v1/chat/completions", json=body())).status_code == 200


class TestSlowBody:
    @pytest.fixture
    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        return settings.model_copy(update={"body_seconds": 0.05, "body_bytes": 100_000})

    async def test_a_body_that_does_not_come(self, base_url: str) -> None:
        url = urlsplit(base_url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        writer.close()

    @pytest.mark.parametrize("size", [150_000, 350_000, 2_000_000])
    async def test_a_client_that_sends_too_much_reads_why(self, base_url: str, size: int) -> None:
        """Also when it looks for an answer only after its whole body is sent."""
        async with httpx.AsyncClient(base_url=base_url) as client:
            assert_envelope(await client.post("/v1/chat/completions", json=body("a" * size)), 413)


async def test_a_failure_in_mid_stream_is_told_in_the_stream(base_url: str, fakes: Fakes) -> None:
    fakes.codec.behaviour.failure = ZeroDivisionError("a secret")  # type: ignore[assignment]
    fakes.codec.behaviour.answers_before_failure = 2
    async with httpx.AsyncClient(base_url=base_url) as client:
        response = await client.post("/v1/chat/completions", json=spoken(stream=True))
    assert response.status_code == 200
    frames = response.text.strip().split("\n\n")
    error = json.loads(frames[-1].removeprefix("data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "server_error"
    assert "secret" not in response.text
    assert "[DONE]" not in response.text
    await fakes.until_closed()
