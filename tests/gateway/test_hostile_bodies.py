"""Bodies made to cost much: they are refused before they unfold, and nobody else waits or is refused for them."""

import asyncio
import json
import time
import tracemalloc
from collections.abc import AsyncIterator

import httpx
import pytest

from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, assert_envelope, body

URL = "/v1/chat/completions"
HEADERS = {"content-type": "application/json"}
START = b'{"model":"antiphon-nano","max_tokens":3,"messages":[{"role":"user","content":'


def many(value: bytes, byte_count: int) -> bytes:
    return b",".join([value] * (byte_count // (len(value) + 1)))


def unfolding(byte_count: int) -> dict[str, bytes]:
    return {
        "parts": START + b"[" + many(b'{"type":"text","text":""}', byte_count) + b"]}]}",
        "wrong parts": START + b"[" + many(b'{"type":"x"}', byte_count) + b"]}]}",
        "messages": b'{"model":"m","messages":[' + many(b'{"role":"user","content":""}', byte_count) + b"]}",
        "wrong messages": b'{"model":"m","messages":[' + many(b"1", byte_count) + b"]}",
        "wrong modalities": START + b'"a"}],"modalities":[' + many(b'"x"', byte_count) + b"]}",
        "wrong stops": START + b'"a"}],"stop":[' + many(b"1", byte_count) + b"]}",
        "objects": START + b'"a"}],"tools":[' + many(b'{"a":{}}', byte_count) + b"]}",
        "numbers nobody knows": START + b'"a"}],"temperature":9,"new":[' + many(b"1", byte_count) + b"]}",
        "biases": START + b'"a"}],"logit_bias":{' + b",".join(b'"%d":"x"' % n for n in range(byte_count // 8)) + b"}}",
    }


LARGE, SMALL = unfolding(8 << 20), unfolding(600_000)


@pytest.mark.parametrize("name", LARGE)
async def test_a_body_of_very_many_values_is_refused_unread(client: httpx.AsyncClient, name: str) -> None:
    started = time.perf_counter()
    response = await client.post(URL, content=LARGE[name], headers=HEADERS)
    message = assert_envelope(response, 413, code="request_too_large")
    assert "500000" in message
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("name", [name for name in SMALL if "wrong" in name or name == "biases"])
async def test_one_fault_is_told_not_each(client: httpx.AsyncClient, name: str) -> None:
    tracemalloc.start()
    try:
        response = await client.post(URL, content=SMALL[name], headers=HEADERS)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_envelope(response, 400)
    assert peak_bytes < 60 * len(SMALL[name])


async def test_text_may_be_full_of_commas(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json=body("1,2,[3],{4}," * 1000))
    assert response.status_code == 200


async def test_a_long_data_url_head_is_not_taken_apart(client: httpx.AsyncClient) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:" + ";" * 2_000_000 + ",AAAA"}}
    response = await client.post(URL, json=body([part]))
    assert_envelope(response, 400, "messages[0].content[0].image_url.url")


@pytest.mark.parametrize(
    "headers", [{"content-length": str(10**11)}, {"content-length": str(10**8), "expect": "100-continue"}]
)
async def test_a_body_announced_too_large_is_not_waited_for(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with asyncio.timeout(5):
        response = await client.post(URL, content=never(), headers=HEADERS | headers)
    assert_envelope(response, 413, code="request_too_large")


class TestRoom:
    @pytest.fixture
    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        return settings.model_copy(update={"held_body_bytes": 100_000, "concurrent_turns": 2})

    async def test_bodies_that_do_not_fit_beside_each_other(self, client: httpx.AsyncClient) -> None:
        release = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield json.dumps(body(user="a" * 80_000)).encode()
            await release.wait()

        first = asyncio.create_task(client.post(URL, content=slow(), headers=HEADERS))
        await asyncio.sleep(0.05)
        response = await client.post(URL, json=body(user="a" * 80_000))
        assert_envelope(response, 503, code="at_capacity")
        assert response.headers["retry-after"] == "1"
        assert (await client.post(URL, json=body())).status_code == 200
        release.set()
        assert (await first).status_code == 200
        assert (await client.post(URL, json=body(user="a" * 80_000))).status_code == 200

    async def test_a_body_that_never_fits_is_too_large(self, client: httpx.AsyncClient) -> None:
        assert_envelope(await client.post(URL, json=body(user="a" * 110_000)), 413, code="request_too_large")

    async def test_slow_bodies_take_no_turns(self, client: httpx.AsyncClient, fakes: Fakes) -> None:
        release = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b'{"model":'
            await release.wait()

        waiting = [asyncio.create_task(client.post(URL, content=slow(), headers=HEADERS)) for _ in range(8)]
        await asyncio.sleep(0.05)
        assert (await client.post(URL, json=body())).status_code == 200
        release.set()
        for response in await asyncio.gather(*waiting):
            assert_envelope(response, 400, code="invalid_json")
        assert fakes.open_calls == 0
