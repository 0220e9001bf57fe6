"""What sessions keep, in this process and in Redis: a test that takes `opened` runs against both."""

from collections.abc import AsyncIterator, Callable

import pytest

from antiphon.sessions.opening import Sessions, open_sessions
from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import Storage, open_redis
from tests.redis_server import PATIENT, RedisServer

Opened = Callable[..., Sessions]


@pytest.fixture
async def storage(redis_server: RedisServer) -> AsyncIterator[Storage]:
    """An empty one."""
    redis_server.ask("FLUSHALL")
    storage = open_redis(redis_server.url, PATIENT)
    yield storage
    await storage.close()


@pytest.fixture(params=["memory", "redis"])
def opened(request: pytest.FixtureRequest) -> Opened:
    """Opens sessions with the settings that are named, the others as usual."""
    kept_in = None if request.param == "memory" else request.getfixturevalue("storage")
    return lambda **settings: open_sessions(kept_in, SessionSettings(**settings))
