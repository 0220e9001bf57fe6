"""Conversations come back as they were kept, one writer wins, bounds and lifetimes hold."""

import asyncio
import struct
from dataclasses import replace

import pytest

from antiphon.errors import AtCapacity, Conflict, InternalError, NotFound, TooLarge, Unavailable
from antiphon.sessions.conversation import Conversation
from antiphon.sessions.conversation_format import pack_conversation, unpack_conversation
from antiphon.sessions.opening import open_sessions
from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import Storage, open_redis
from tests.cutting_proxy import cutting_proxy
from tests.redis_server import RedisServer
from tests.sessions.conftest import Opened
from tests.sessions.conversations import conversation


async def test_a_conversation_comes_back_as_it_was_kept(opened: Opened) -> None:
    store = opened().conversations
    assert await store.create("acme", conversation()) == 1
    found = await store.load("acme", "conv_1")
    assert (found.conversation, found.version) == (conversation(), 1)


async def test_each_save_is_the_next_version(opened: Opened) -> None:
    store = opened().conversations
    await store.create("acme", conversation())
    assert await store.save("acme", replace(conversation(), turn=None), expected_version=1) == 2
    assert await store.save("acme", replace(conversation(), items=()), expected_version=2) == 3
    found = await store.load("acme", "conv_1")
    assert (found.conversation.items, found.version) == ((), 3)


async def test_who_saves_what_another_changed_is_told(opened: Opened) -> None:
    store = opened().conversations
    await store.create("acme", conversation())
    await store.save("acme", replace(conversation(), items=()), expected_version=1)
    with pytest.raises(Conflict, match="expected version 1; it is at 2"):
        await store.save("acme", conversation(), expected_version=1)
    assert (await store.load("acme", "conv_1")).conversation.items == ()


async def test_an_id_is_given_once(opened: Opened) -> None:
    store = opened().conversations
    await store.create("acme", conversation())
    with pytest.raises(Conflict):
        await store.create("acme", replace(conversation(), items=()))
    assert (await store.load("acme", "conv_1")).conversation == conversation()


async def test_what_is_deleted_is_unknown_and_may_come_again(opened: Opened) -> None:
    store = opened(conversation_count=1).conversations
    await store.create("acme", conversation())
    await store.delete("acme", "conv_1")
    await store.delete("acme", "conv_1")
    with pytest.raises(NotFound):
        await store.load("acme", "conv_1")
    with pytest.raises(NotFound):
        await store.save("acme", conversation(), expected_version=1)
    assert await store.create("acme", conversation("conv_2")) == 1


async def test_another_tenants_conversation_is_unknown(opened: Opened) -> None:
    store = opened().conversations
    await store.create("acme", conversation())
    for guessed in ("conv_1", "{acme}:conversation:conv_1", "}:conversation:conv_1", "../acme/conv_1", ""):
        with pytest.raises(NotFound):
            await store.load("evil", guessed)
    await store.delete("evil", "conv_1")
    assert await store.create("evil", replace(conversation(), items=())) == 1
    assert (await store.load("acme", "conv_1")).conversation == conversation()


async def test_tenants_whose_names_look_alike_are_apart(opened: Opened) -> None:
    store = opened().conversations
    await store.create("a:conversation", conversation("b"))
    await store.create("a}", conversation("b"))
    for tenant, guessed in (("a", "conversation:b"), ("a", "}:conversation:b"), ("a%7D", "b")):
        with pytest.raises(NotFound):
            await store.load(tenant, guessed)


async def test_too_many_items_and_too_many_bytes_are_refused_before_they_are_kept(opened: Opened) -> None:
    store = opened(conversation_items=6, conversation_bytes=2000, conversation_configuration_bytes=20).conversations
    with pytest.raises(TooLarge, match="at most 6 items; came 7"):
        await store.create("acme", conversation(item_count=7))
    with pytest.raises(TooLarge, match="2000 bytes"):
        await store.create("acme", replace(conversation(), id="x" * 2000))
    with pytest.raises(TooLarge, match="20 bytes of configuration; came 21"):
        await store.create("acme", replace(conversation(), configuration="ü" * 10 + "x"))
    await store.create("acme", conversation(item_count=6))
    with pytest.raises(TooLarge):
        await store.save("acme", conversation(item_count=7), expected_version=1)


async def test_a_tenant_keeps_so_many_conversations_and_no_more(opened: Opened) -> None:
    store = opened(conversation_count=2, conversation_seconds=0.3).conversations
    await store.create("acme", conversation("conv_1"))
    await store.create("acme", conversation("conv_2"))
    with pytest.raises(AtCapacity, match="At most 2"):
        await store.create("acme", conversation("conv_3"))
    await store.create("other", conversation("conv_3"))
    await asyncio.sleep(0.35)
    await store.create("acme", conversation("conv_3"))


async def test_a_conversation_is_forgotten_some_time_after_its_last_use(opened: Opened) -> None:
    store = opened(conversation_seconds=0.8).conversations
    await store.create("acme", conversation("used"))
    await store.create("acme", conversation("saved"))
    await store.create("acme", conversation("left"))
    await asyncio.sleep(0.5)
    await store.load("acme", "used")
    await store.save("acme", conversation("saved"), expected_version=1)
    await asyncio.sleep(0.5)
    await store.load("acme", "used")
    await store.load("acme", "saved")
    with pytest.raises(NotFound, match="expired"):
        await store.load("acme", "left")


async def test_of_many_who_save_at_once_exactly_one_wins(opened: Opened) -> None:
    store = opened().conversations
    await store.create("acme", conversation())
    saves = [store.save("acme", _named(n), expected_version=1) for n in range(20)]
    outcomes = await asyncio.gather(*saves, return_exceptions=True)
    assert outcomes.count(2) == 1
    assert all(isinstance(outcome, Conflict) for outcome in outcomes if outcome != 2)
    found = await store.load("acme", "conv_1")
    assert (found.conversation, found.version) == (_named(outcomes.index(2)), 2)


async def test_of_two_gateways_that_save_at_once_exactly_one_wins(storage: Storage, redis_server: RedisServer) -> None:
    one = open_sessions(storage, SessionSettings()).conversations
    elsewhere = open_redis(redis_server.url)
    other = open_sessions(elsewhere, SessionSettings()).conversations
    version = await one.create("acme", conversation())
    for _ in range(25):
        saves = (store.save("acme", conversation(), expected_version=version) for store in (one, other))
        outcomes = await asyncio.gather(*saves, return_exceptions=True)
        assert sorted(isinstance(outcome, Conflict) for outcome in outcomes) == [False, True]
        version += 1
    assert (await other.load("acme", "conv_1")).version == version
    await elsewhere.close()


async def test_a_save_whose_answer_was_lost_is_no_conflict_with_itself(redis_server: RedisServer) -> None:
    async with cutting_proxy(redis_server.port) as proxy, open_redis(proxy.url) as storage:
        store = open_sessions(storage, SessionSettings()).conversations
        version = await store.create("acme", conversation("conv_cut"))
        proxy.answers_to_cut = 1
        assert await store.save("acme", conversation("conv_cut"), expected_version=version) == 2
        proxy.answers_to_cut = 1
        assert await store.create("acme", conversation("conv_cut_too")) == 1


def test_a_conversation_of_another_format_is_refused_with_both_numbers() -> None:
    packed = bytearray(pack_conversation(conversation()))
    struct.pack_into("<H", packed, 4, 2)
    with pytest.raises(Unavailable, match="reads format 1; came 2"):
        unpack_conversation(bytes(packed))


@pytest.mark.parametrize("packed", [b"", b"ANTC", b"JUNK" + bytes(18), pack_conversation(conversation())[:-1]])
def test_what_is_no_conversation_is_refused(packed: bytes) -> None:
    with pytest.raises(InternalError):
        unpack_conversation(packed)


def test_fifty_items_are_a_few_kilobytes() -> None:
    assert len(pack_conversation(conversation(item_count=50))) < 8192


def _named(number: int) -> Conversation:
    return replace(conversation(), configuration=f'{{"n":{number}}}')
