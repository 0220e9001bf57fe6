"""A real Redis for all tests of this folder, emptied before each; and each store in both of its forms."""

from collections.abc import AsyncIterator, Iterator

import pytest

from antiphon.storage.connection import Storage, open_redis
from antiphon.telemetry.metrics import Metrics
from tests.redis_server import PATIENT, RedisServer, running_redis


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def storage(redis_server: RedisServer) -> AsyncIterator[Storage]:
    redis_server.ask("FLUSHALL")
    opened = open_redis(redis_server.url, PATIENT, Metrics())
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", "redis"])
def form(request: pytest.FixtureRequest) -> str:
    form: str = request.param
    return form
