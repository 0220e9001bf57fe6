"""Gateways that share a Redis know each other's spoken answers; while it is away, what was begun is finished."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import pytest

from antiphon.storage.connection import open_redis
from antiphon.telemetry.metrics import Metrics
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, assert_envelope, body, spoken
from tests.gateway.test_disconnect import until_open
from tests.redis_server import RedisServer, running_redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may stop."""
    with running_redis(tmp_path) as server:
        yield server


@asynccontextmanager
async def gateway(settings: GatewaySettings, fakes: Fakes, redis: RedisServer) -> AsyncIterator[httpx.AsyncClient]:
    metrics = Metrics()
    async with AsyncExitStack() as opened:
        storage = await opened.enter_async_context(open_redis(redis.url, metrics=metrics))
        app = create_app(settings, fakes.stages(), metrics=metrics, storage=storage)
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")
        yield await opened.enter_async_context(client)


async def test_another_gateway_knows_what_this_one_said(
    settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer
) -> None:
    async with gateway(settings, fakes, redis_server) as one, gateway(settings, fakes, redis_server) as other:
        said = (await one.post("/v1/chat/completions", json=spoken())).json()["choices"][0]["message"]["audio"]
        fakes.thinker.behaviour.received.clear()
        for earlier in ({"audio": {"id": said["id"]}}, {"content": "the cat is black"}):
            answer = await other.post("/v1/chat/completions", json=_going_on(earlier))
            assert answer.status_code == 200
    starts = [request.start for request in fakes.thinker.behaviour.received if request.HasField("start")]
    by_id, spelt_out = (start.prompt.token_ids for start in starts)
    assert list(by_id) == list(spelt_out)


async def test_an_audio_id_that_is_nobodys_is_refused(
    settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer
) -> None:
    async with gateway(settings, fakes, redis_server) as client:
        refused = await client.post("/v1/chat/completions", json=_going_on({"audio": {"id": "audio_of_another"}}))
    assert_envelope(refused, 400, "messages[1].audio.id")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_under_way_is_given_whole_though_redis_went_away(
    settings: GatewaySettings, fakes: Fakes, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setenv("ANTIPHON_KEY_CACHE_SECONDS", "0")
    fakes.talker.behaviour.pause_seconds = 0.1
    async with gateway(settings, fakes, own_redis) as client:
        under_way = asyncio.create_task(
            client.post("/v1/chat/completions", json=spoken(stream=stream, **_format(stream)))
        )
        await until_open(fakes, 2)
        own_redis.kill()
        answer = await under_way
        assert answer.status_code == 200
        assert answer.text.endswith("data: [DONE]\n\n") if stream else answer.json()["choices"]
        refused = await client.post("/v1/chat/completions", json=spoken())
        assert_envelope(refused, 503, code="unavailable")
        own_redis.start()
        assert (await client.post("/v1/chat/completions", json=spoken())).status_code == 200


async def test_who_refers_to_what_redis_keeps_hears_soon_that_it_is_away(
    settings: GatewaySettings, fakes: Fakes, own_redis: RedisServer
) -> None:
    async with gateway(settings, fakes, own_redis) as client:
        said = (await client.post("/v1/chat/completions", json=spoken())).json()["choices"][0]["message"]["audio"]
        own_redis.kill()
        started = perf_counter()
        refused = await client.post("/v1/chat/completions", json=_going_on({"audio": {"id": said["id"]}}))
        assert perf_counter() - started < 5
        message = assert_envelope(refused, 503, code="unavailable")
        assert message == "The storage of sessions cannot be reached. Try again in a moment."
        own_redis.start()
        assert (
            await client.post("/v1/chat/completions", json=_going_on({"audio": {"id": said["id"]}}))
        ).status_code == 200


async def test_readiness_and_metrics_tell_whether_redis_answers(
    settings: GatewaySettings, fakes: Fakes, own_redis: RedisServer
) -> None:
    async with gateway(settings, fakes, own_redis) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready", "stages": {}, "storage": True}
        assert "antiphon_storage_up 1.0" in (await client.get("/metrics")).text
        own_redis.kill()
        away = await client.get("/readyz")
        assert (away.status_code, away.json()["storage"]) == (200, False)
        text = (await client.get("/metrics")).text
        assert "antiphon_storage_up 0.0" in text
        assert "antiphon_storage_lost_total 1.0" in text


def _going_on(earlier: dict[str, Any]) -> dict[str, Any]:
    asked = body()
    asked["messages"] += [{"role": "assistant", **earlier}, {"role": "user", "content": "and now"}]
    return asked


def _format(stream: bool) -> dict[str, Any]:
    return {"audio": {"voice": "ethan", "format": "pcm16" if stream else "wav"}}
