"""Answers to be given again: one claimer at a time, so many bytes of a tenant, and no claim is forgotten."""

import asyncio
from collections.abc import Callable

import pytest

from antiphon.errors import TooLarge, Unavailable
from antiphon.storage.connection import Storage, open_redis
from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.redis_replies import RedisReplies
from antiphon.tenancy.replies import MemoryReplies, Replies, Reply
from tests.cutting_proxy import cutting_proxy
from tests.redis_server import RedisServer

Opened = Callable[..., Replies]


@pytest.fixture
def opened(form: str, request: pytest.FixtureRequest) -> Opened:
    if form == "memory":
        return lambda seconds=60.0, tenant_bytes=1000: MemoryReplies(seconds, tenant_bytes)
    storage: Storage = request.getfixturevalue("storage")
    return lambda seconds=60.0, tenant_bytes=1000: RedisReplies(storage, seconds, tenant_bytes)


def reply(size: int = 10) -> Reply:
    return Reply(200, ((b"content-type", b"text/plain"),), bytes(size))


async def kept(replies: Replies, key: str, size: int, tenant: str = "acme") -> None:
    assert await replies.claim(tenant, key, "d", key) == "mine"
    await replies.keep(tenant, key, "d", key, reply(size))


async def test_a_claim_is_its_claimers_alone(opened: Opened) -> None:
    replies = opened()
    assert await replies.claim("acme", "k", "d", "first") == "mine"
    assert await replies.claim("acme", "k", "d", "first") == "mine"
    assert await replies.claim("acme", "k", "d", "second") == "running"
    await replies.drop("acme", "k", "second")
    assert await replies.claim("acme", "k", "d", "second") == "running"
    await replies.keep("acme", "k", "d", "second", reply(1))
    assert await replies.claim("acme", "k", "d", "second") == "running"
    await replies.drop("acme", "k", "first")
    assert await replies.claim("acme", "k", "d", "second") == "mine"


async def test_what_is_kept_is_given_again_and_not_dropped(opened: Opened) -> None:
    replies = opened()
    await kept(replies, "k", 10)
    await replies.drop("acme", "k", "k")
    for token in ("k", "another"):
        assert await replies.claim("acme", "k", "d", token) == reply(10)
        assert await replies.claim("acme", "k", "e", token) == "other"


async def test_a_tenant_keeps_so_many_bytes_and_no_other_tenant_is_held_back(opened: Opened) -> None:
    replies = opened(tenant_bytes=1000)
    await kept(replies, "1", 400)
    await kept(replies, "2", 400)
    with pytest.raises(TooLarge, match="at most 1000 bytes"):
        await kept(replies, "3", 400)
    await replies.drop("acme", "3", "3")
    assert await replies.claim("acme", "3", "d", "again") == "mine"
    await kept(replies, "3", 400, tenant="beta")
    assert await replies.claim("acme", "1", "d", "again") == reply(400)


async def test_what_expired_makes_room(opened: Opened) -> None:
    replies = opened(seconds=0.1, tenant_bytes=1000)
    for _ in range(2):
        await kept(replies, "1", 400)
        await kept(replies, "2", 400)
        await asyncio.sleep(0.15)


async def test_memory_forgets_its_oldest_answer_but_none_that_is_being_given() -> None:
    replies = MemoryReplies(60.0, 1000, count=2)
    assert await replies.claim("acme", "running", "d", "first") == "mine"
    for key in ("1", "2", "3"):
        await kept(replies, key, 10)
    assert await replies.claim("acme", "running", "d", "second") == "running"
    assert await replies.claim("acme", "3", "d", "second") == reply(10)
    assert await replies.claim("acme", "1", "d", "second") == "mine"


async def test_a_claim_whose_answer_was_lost_is_had_all_the_same(redis_server: RedisServer, storage: Storage) -> None:
    async with cutting_proxy(redis_server.port) as proxy, open_redis(proxy.url, metrics=Metrics()) as cut:
        replies = RedisReplies(cut, 60.0, 1000)
        await kept(replies, "before", 1)
        proxy.answers_to_cut = 1
        assert await replies.claim("acme", "k", "d", "first") == "mine"
        proxy.answers_to_cut = 2
        with pytest.raises(Unavailable):
            await replies.claim("acme", "other", "d", "second")
        await replies.drop("acme", "other", "second")
        assert await replies.claim("acme", "other", "d", "third") == "mine"
