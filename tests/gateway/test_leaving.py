"""A gateway that is told to stop: it says so, refuses new turns, and lets open ones finish within their time."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from services.gateway.serving import serving_gateway
from tests.gateway.conftest import Fakes, assert_envelope, body, events_of, over_grpc, spoken
from tests.gateway.test_disconnect import until_open
from tests.gateway.test_resumed_streams import Heard
from tests.redis_server import RedisServer


async def test_the_turn_under_way_finishes_while_readiness_tells(nano: Path, fakes: Fakes, tmp_path: Path) -> None:
    fakes.talker.behaviour.pause_seconds = 0.1
    async with over_grpc(fakes, tmp_path) as caller, httpx.AsyncClient() as client, asyncio.TaskGroup() as watching:
        async with serving_gateway(nano, caller, ("127.0.0.1", 0), 20) as port:
            url = f"http://127.0.0.1:{port}"
            turn = asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=spoken(stream=True)))
            await until_open(fakes, 1)
            watching.create_task(see_it_leave(client, url))
        assert events_of((await turn).text)[-1]["choices"][0]["finish_reason"] == "stop"
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}/readyz")


async def see_it_leave(client: httpx.AsyncClient, url: str) -> None:
    await asyncio.sleep(0.05)
    readiness = await client.get(f"{url}/readyz")
    assert (readiness.status_code, readiness.json()["status"]) == (503, "draining")
    refused = await client.post(f"{url}/v1/chat/completions", json=body())
    assert "stopping" in assert_envelope(refused, 503)
    assert refused.headers["retry-after"] == "1"


async def test_a_turn_that_outlasts_its_time_is_cut(nano: Path, fakes: Fakes, tmp_path: Path) -> None:
    fakes.talker.behaviour.pause_seconds = 30
    async with over_grpc(fakes, tmp_path) as caller, httpx.AsyncClient() as client:
        async with serving_gateway(nano, caller, ("127.0.0.1", 0), 0.1) as port:
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            turn = asyncio.create_task(client.post(url, json=spoken(stream=True)))
            await until_open(fakes, 1)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        await asyncio.gather(turn, return_exceptions=True)
        await fakes.until_closed()


async def test_streams_that_outlast_their_time_say_so_and_go_on_elsewhere(
    nano: Path, fakes: Fakes, tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_REDIS_URL", redis_server.url)
    fakes.talker.frames_after_text = 100
    asked = spoken(stream=True, audio={"voice": "ethan", "format": "pcm16"})
    heard = Heard()
    async with (
        over_grpc(fakes, tmp_path) as caller,
        httpx.AsyncClient() as client,
        serving_gateway(nano, caller, ("127.0.0.1", 0), 20) as other,
    ):
        undisturbed = Heard()
        undisturbed.read((await client.post(f"http://127.0.0.1:{other}/v1/chat/completions", json=asked)).text)
        fakes.talker.behaviour.pause_seconds = 0.02
        async with serving_gateway(nano, caller, ("127.0.0.1", 0), 0.3) as port:
            turn = asyncio.create_task(client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=asked))
            await until_open(fakes, 1)
            await asyncio.sleep(0.3)
        heard.read((await turn).text)
        assert heard.error is not None
        assert (heard.error["code"], heard.is_done) == ("server_draining", False)
        await fakes.until_closed()
        fakes.talker.behaviour.pause_seconds = 0
        headers = {"last-event-id": heard.last_id}
        path = f"/v1/chat/completions/{heard.answer_id}/events"
        heard.read((await client.get(f"http://127.0.0.1:{other}{path}", headers=headers)).text)
    assert (heard.text, heard.pcm, heard.is_done) == (undisturbed.text, undisturbed.pcm, True)
