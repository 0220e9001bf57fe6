"""A gateway with tenants: their keys, limits and records behind it, in memory or in a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from antiphon.storage.connection import Storage, open_redis
from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.caller import TenantLimits
from antiphon.tenancy.key_desk import KeyWish
from antiphon.tenancy.opening import Tenancy, open_tenancy, tenancy_in_memory
from antiphon.tenancy.records import TenantRecord
from antiphon.tenancy.settings import TenancySettings
from antiphon.tenancy.usage_log import UsageRecord
from antiphon.tenancy.usage_pages import every_record
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, listening
from tests.redis_server import PATIENT, RedisServer, running_redis

CHAT = "/v1/chat/completions"
SETTINGS = TenancySettings(key_pepper="pepper", key_cache_seconds=0.0, key_environment="test", place_lease_seconds=0.3)  # type: ignore[arg-type]


@dataclass
class TenantGateway:
    """What a test does with it as an administrator, and its address."""

    app: FastAPI
    tenancy: Tenancy
    url: str
    keys: dict[str, str] = field(default_factory=dict)

    async def enrol(self, tenant: str, limits: TenantLimits | None = None, **wish: Any) -> str:
        """Its key."""
        desk = self.tenancy.desk()
        known = {record.id for record in (await self.tenancy.registry.all())[0]}
        if tenant not in known:
            await desk.create_tenant(TenantRecord(id=tenant, limits=limits or TenantLimits()), "test")
        return (await desk.create_key(KeyWish(tenant, **wish), "test")).key.secret

    def client(self, key: str | None) -> httpx.AsyncClient:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20)

    async def records(self, tenant: str) -> list[UsageRecord]:
        async with asyncio.timeout(5):
            while self.app.state.gate.turns:  # noqa: ASYNC110 - a turn ends a little after its client has all of it
                await asyncio.sleep(0.005)
        await self.app.state.admission.close()
        return [record async for record in every_record(self.tenancy.usage, tenant, 0, 4e9)]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def storage(redis_server: RedisServer) -> AsyncIterator[Storage]:
    redis_server.ask("FLUSHALL")
    async with open_redis(redis_server.url, PATIENT, Metrics()) as opened:
        yield opened


@pytest.fixture(params=["memory", "redis"])
def tenancy(request: pytest.FixtureRequest) -> Tenancy:
    if request.param == "memory":
        return tenancy_in_memory(SETTINGS)
    return open_tenancy(request.getfixturevalue("storage"), SETTINGS)


@pytest.fixture
async def gateway(settings: GatewaySettings, fakes: Fakes, tenancy: Tenancy) -> AsyncIterator[TenantGateway]:
    app = create_app(settings, fakes.stages(), metrics=Metrics(), tenancy=tenancy)
    async with listening(app) as url:
        yield TenantGateway(app, tenancy, url)
