"""What only a real Redis can show: which commands it runs, where keys lie, that nothing is lost."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from antiphon.errors import Conflict, Unavailable
from antiphon.sessions.event_log import LoggedEvent
from antiphon.sessions.opening import Sessions, open_sessions
from antiphon.sessions.progress import Progress
from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import Storage, open_redis
from tests.redis_fleet import running_cluster
from tests.redis_server import PATIENT, RedisServer, running_redis
from tests.sessions.conversations import conversation, frames


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture
async def own_storage(own_redis: RedisServer) -> AsyncIterator[Storage]:
    async with open_redis(own_redis.url) as storage:
        yield storage


async def use_everything(sessions: Sessions, tenant: str) -> None:
    await sessions.conversations.create(tenant, conversation())
    await sessions.conversations.save(tenant, replace(conversation(), turn=None), expected_version=1)
    await sessions.media.get(tenant, await sessions.media.put(tenant, b"a sound"))
    writer = await sessions.journal.begin(tenant, "turn_1", b"asked")
    await writer.append(Progress(np.array([1, 2], np.int32), frames(2)))
    _, second = await sessions.journal.take_over(tenant, "turn_1")
    await second.finish()
    event = LoggedEvent(1, b"an event", b"a sound")
    await sessions.events.keep(tenant, "conv_1", 2, [event], None)
    await sessions.transcripts.keep(tenant, "audio_1", "it is warm")


async def assert_everything_is_there(sessions: Sessions, tenant: str) -> None:
    found = await sessions.conversations.load(tenant, "conv_1")
    assert (found.conversation, found.version) == (replace(conversation(), turn=None), 2)
    assert await sessions.media.get(tenant, await sessions.media.put(tenant, b"a sound")) == b"a sound"
    turn = await sessions.journal.read(tenant, "turn_1")
    assert (turn.record, turn.is_finished) == (b"asked", True)
    assert turn.progress == Progress(np.array([1, 2], np.int32), frames(2))
    page = await sessions.events.after(tenant, "conv_1", 0, 10)
    assert page.events == (LoggedEvent(1, b"an event", b"a sound"),)
    assert await sessions.transcripts.find(tenant, "audio_1") == "it is warm"


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_nothing_is_lost_when_redis_starts_again(own_redis: RedisServer, own_storage: Storage, end: str) -> None:
    sessions = open_sessions(own_storage, SessionSettings())
    await use_everything(sessions, "acme")
    writer = await sessions.journal.begin("acme", "turn_2", b"asked")
    getattr(own_redis, end)()
    with pytest.raises(Unavailable):
        await sessions.conversations.load("acme", "conv_1")
    own_redis.start()
    await assert_everything_is_there(sessions, "acme")
    await writer.append(Progress(np.array([7], np.int32)))
    await sessions.journal.take_over("acme", "turn_2")
    with pytest.raises(Conflict):
        await writer.append(Progress(np.array([8], np.int32)))


async def test_no_command_walks_over_keys_or_blocks_the_server(own_redis: RedisServer, own_storage: Storage) -> None:
    sessions = open_sessions(own_storage, SessionSettings())
    own_redis.ask("CONFIG", "RESETSTAT")
    await use_everything(sessions, "acme")
    await assert_everything_is_there(sessions, "acme")
    await sessions.conversations.delete("acme", "conv_1")
    used = set(re.findall(r"cmdstat_([a-z|]+):", own_redis.ask("INFO", "commandstats")))
    assert "evalsha" in used
    assert not used & {"keys", "scan", "hscan", "zscan", "sscan", "flushall", "flushdb", "randomkey", "sort", "hgetall"}


async def test_every_key_belongs_to_its_tenant_and_expires(own_redis: RedisServer, own_storage: Storage) -> None:
    await use_everything(open_sessions(own_storage, SessionSettings()), "acme")
    keys = await own_storage.execute("KEYS", "*")
    assert isinstance(keys, list)
    assert len(keys) == 15
    for key in keys:
        assert isinstance(key, bytes)
        assert key.startswith(b"antiphon:{acme}:")
        assert 0 < int(own_redis.ask("TTL", key.decode()).removeprefix(":")) <= 86_400


async def test_scripts_are_sent_once(own_redis: RedisServer, own_storage: Storage) -> None:
    sessions = open_sessions(own_storage, SessionSettings())
    for n in range(5):
        await sessions.transcripts.keep("acme", f"audio_{n}", "said")
    stats = own_redis.ask("INFO", "commandstats")
    assert "cmdstat_eval:calls=1," in stats
    assert "cmdstat_evalsha:calls=5," in stats


async def test_a_cluster_keeps_everything_of_many_tenants(tmp_path: Path) -> None:
    tenants = [f"tenant {n}" for n in range(12)]
    with running_cluster(tmp_path, node_count=3) as nodes:
        async with open_redis(f"redis+cluster://127.0.0.1:{nodes[1].port}", PATIENT) as storage:
            sessions = open_sessions(storage, SessionSettings())
            for tenant in tenants:
                await use_everything(sessions, tenant)
        async with open_redis(f"redis+cluster://127.0.0.1:{nodes[2].port}", PATIENT) as storage:
            sessions = open_sessions(storage, SessionSettings())
            for tenant in tenants:
                await assert_everything_is_there(sessions, tenant)
        assert all(int(node.ask("DBSIZE").removeprefix(":")) > 0 for node in nodes)
