"""Events come again in their order, from where a client left off, or it is told that some are gone."""

import asyncio

import pytest

from antiphon.errors import TooLarge
from antiphon.sessions.event_log import EventPage, LoggedEvent
from antiphon.sessions.opening import open_sessions
from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import open_redis
from tests.cutting_proxy import cutting_proxy
from tests.redis_server import RedisServer
from tests.sessions.conftest import Opened


async def test_events_come_again_in_their_order(opened: Opened) -> None:
    events = opened().events
    assert [await events.append("acme", "s", data) for data in (b"one", b"\x00\xff", b"")] == [1, 2, 3]
    everything = (LoggedEvent(1, b"one"), LoggedEvent(2, b"\x00\xff"), LoggedEvent(3, b""))
    assert await events.after("acme", "s", 0, 10) == EventPage(everything, True)
    assert await events.after("acme", "s", 1, 10) == EventPage(everything[1:], True)
    assert await events.after("acme", "s", 1, 1) == EventPage(everything[1:2], True)
    assert await events.after("acme", "s", 3, 10) == EventPage((), True)


async def test_what_was_appended_at_once_has_ids_without_a_gap(opened: Opened) -> None:
    events = opened().events
    ids = await asyncio.gather(*(events.append("acme", "s", str(n).encode()) for n in range(30)))
    assert sorted(ids) == list(range(1, 31))
    page = await events.after("acme", "s", 0, 100)
    assert [event.data for event in page.events] == [str(ids.index(n)).encode() for n in range(1, 31)]


async def test_a_client_that_was_away_too_long_is_told(opened: Opened) -> None:
    events = opened(event_count=3).events
    for n in range(1, 6):
        await events.append("acme", "s", str(n).encode())
    kept = tuple(LoggedEvent(n, str(n).encode()) for n in (3, 4, 5))
    assert await events.after("acme", "s", 2, 10) == EventPage(kept, True)
    assert await events.after("acme", "s", 1, 10) == EventPage(kept, False)


async def test_a_client_that_saw_more_than_there_was_is_told(opened: Opened) -> None:
    events = opened().events
    assert await events.after("acme", "never", 4, 10) == EventPage((), False)
    await events.append("acme", "s", b"one")
    assert await events.after("acme", "s", 7, 10) == EventPage((), False)


async def test_bytes_of_a_stream_are_bounded(opened: Opened) -> None:
    events = opened(event_bytes=10).events
    for data in (b"aaaa", b"bbbb", b"cccc"):
        await events.append("acme", "s", data)
    assert [event.id for event in (await events.after("acme", "s", 0, 10)).events] == [2, 3]
    await events.append("acme", "s", b"d" * 10)
    assert [event.id for event in (await events.after("acme", "s", 0, 10)).events] == [4]
    with pytest.raises(TooLarge, match="at most 10 bytes; came 11"):
        await events.append("acme", "s", b"e" * 11)


async def test_old_events_are_forgotten_while_the_stream_goes_on(opened: Opened) -> None:
    events = opened(event_seconds=0.8).events
    await events.append("acme", "s", b"old")
    await asyncio.sleep(0.5)
    await events.append("acme", "s", b"young")
    await asyncio.sleep(0.5)
    assert await events.after("acme", "s", 0, 10) == EventPage((LoggedEvent(2, b"young"),), False)
    assert await events.append("acme", "s", b"new") == 3
    assert [event.id for event in (await events.after("acme", "s", 1, 10)).events] == [2, 3]


async def test_another_tenants_stream_is_empty(opened: Opened) -> None:
    events = opened().events
    await events.append("acme", "s", b"secret")
    for guessed in ("s", "{acme}:events:s", ""):
        assert (await events.after("evil", guessed, 0, 10)).events == ()
    assert await events.append("evil", "s", b"own") == 1
    assert (await events.after("acme", "s", 0, 10)).events == (LoggedEvent(1, b"secret"),)


async def test_an_event_whose_answer_was_lost_is_there_once(redis_server: RedisServer) -> None:
    async with cutting_proxy(redis_server.port) as proxy, open_redis(proxy.url) as storage:
        events = open_sessions(storage, SessionSettings()).events
        await events.append("acme", "s_cut", b"one")
        proxy.answers_to_cut = 1
        assert await events.append("acme", "s_cut", b"two") == 2
        page = await events.after("acme", "s_cut", 0, 10)
        assert [event.data for event in page.events] == [b"one", b"two"]
