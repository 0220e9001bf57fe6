"""While Redis is away nobody new is let in, who runs goes on, and nothing of it is lost."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from antiphon.storage.connection import open_redis
from antiphon.storage.settings import StorageSettings
from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.caller import TenantLimits
from antiphon.tenancy.opening import open_tenancy
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, body, events_of, listening
from tests.gateway.tenants.conftest import CHAT, SETTINGS, TenantGateway
from tests.gateway.test_disconnect import until_open
from tests.redis_server import RedisServer, running_redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


async def test_redis_goes_and_comes_back(settings: GatewaySettings, fakes: Fakes, server: RedisServer) -> None:
    async with open_redis(server.url, StorageSettings(), Metrics()) as storage:
        tenancy = open_tenancy(storage, SETTINGS)
        app = create_app(settings, fakes.stages(), metrics=Metrics(), tenancy=tenancy)
        async with listening(app) as url:
            gateway = TenantGateway(app, tenancy, url)
            key = await gateway.enrol("acme", TenantLimits(concurrent_turns=1, tokens_per_minute=10_000))
            fakes.thinker.behaviour.pause_seconds = 0.1
            async with gateway.client(key) as client:
                running = asyncio.create_task(client.post(CHAT, json=body(stream=True)))
                await until_open(fakes, 1)
                server.kill()
                refused = await client.post(CHAT, json=body())
                assert (refused.status_code, refused.json()["error"]["type"]) == (503, "server_error")
                assert refused.headers["retry-after"]
                answer = await running
                assert answer.status_code == 200
                assert events_of(answer.text)
                server.start()
                fakes.thinker.behaviour.pause_seconds = 0
                await asyncio.sleep(SETTINGS.place_lease_seconds)
                assert (await client.post(CHAT, json=body())).status_code == 200
            records = await gateway.records("acme")
    assert [record.outcome for record in records] == ["completed", "completed"]
