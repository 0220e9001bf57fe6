"""Events come again in their order, from where a client left off, or it is told that some are gone."""

import asyncio

import pytest

from antiphon.errors import Conflict, NotFound, TooLarge
from antiphon.sessions.event_log import EventLog, EventPage, LoggedEvent
from antiphon.sessions.opening import Sessions, open_sessions
from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import open_redis
from tests.cutting_proxy import cutting_proxy
from tests.redis_server import RedisServer
from tests.sessions.conftest import Opened
from tests.sessions.conversations import conversation


def numbered(*data: bytes, first: int = 1) -> tuple[LoggedEvent, ...]:
    return tuple(LoggedEvent(first + index, each) for index, each in enumerate(data))


async def begun(opened: Opened, **bounds: float) -> EventLog:
    """Of a conversation "s" in version 1."""
    sessions: Sessions = opened(**bounds)
    await sessions.conversations.create("acme", conversation("s"))
    return sessions.events


async def test_events_come_again_in_their_order(opened: Opened) -> None:
    events = await begun(opened)
    everything = numbered(b"one", b"\x00\xff", b"")
    assert await events.keep("acme", "s", 1, everything[:2], None) == 1
    assert await events.keep("acme", "s", 1, everything[2:], None) == 1
    assert await events.after("acme", "s", 0, 10) == EventPage(everything, 3, True)
    assert await events.after("acme", "s", 1, 10) == EventPage(everything[1:], 3, True)
    assert await events.after("acme", "s", 1, 1) == EventPage(everything[1:2], 3, True)
    assert await events.after("acme", "s", 3, 10) == EventPage((), 3, True)


async def test_an_event_and_the_conversation_that_it_tells_of_are_kept_together(opened: Opened) -> None:
    sessions = opened()
    told = conversation("s")
    assert await sessions.events.keep("acme", "s", 0, numbered(b"one"), told) == 1
    assert (await sessions.conversations.load("acme", "s")).conversation == told
    assert await sessions.events.keep("acme", "s", 1, numbered(b"two", first=2), told) == 2
    assert (await sessions.events.after("acme", "s", 0, 10)).last_id == 2


async def test_who_does_not_have_the_conversation_any_more_tells_nothing_of_it(opened: Opened) -> None:
    sessions = opened()
    events, told = sessions.events, conversation("s")
    with pytest.raises(NotFound):
        await events.keep("acme", "s", 0, numbered(b"one"), None)
    await events.keep("acme", "s", 0, numbered(b"one"), told)
    with pytest.raises(Conflict):
        await events.keep("acme", "s", 0, numbered(b"other"), told)
    await sessions.conversations.save("acme", told, expected_version=1)
    for of_conversation in (told, None):
        with pytest.raises(Conflict):
            await events.keep("acme", "s", 1, numbered(b"two", first=2), of_conversation)
    assert await events.after("acme", "s", 0, 10) == EventPage(numbered(b"one"), 1, True)


async def test_a_client_that_was_away_too_long_is_told(opened: Opened) -> None:
    events = await begun(opened, event_count=3)
    for event in numbered(b"1", b"2", b"3", b"4", b"5"):
        await events.keep("acme", "s", 1, [event], None)
    kept = numbered(b"3", b"4", b"5", first=3)
    assert await events.after("acme", "s", 2, 10) == EventPage(kept, 5, True)
    assert await events.after("acme", "s", 1, 10) == EventPage(kept, 5, False)


async def test_a_client_that_saw_more_than_there_was_is_told(opened: Opened) -> None:
    events = await begun(opened)
    assert await events.after("acme", "never", 4, 10) == EventPage((), 0, False)
    await events.keep("acme", "s", 1, numbered(b"one"), None)
    assert await events.after("acme", "s", 7, 10) == EventPage((), 1, False)


async def test_events_that_were_never_kept_are_missed(opened: Opened) -> None:
    events = await begun(opened)
    await events.keep("acme", "s", 1, [*numbered(b"one"), *numbered(b"four", first=4)], None)
    assert not (await events.after("acme", "s", 0, 10)).is_complete
    assert (await events.after("acme", "s", 3, 10)).is_complete


async def test_bytes_of_a_conversations_events_are_bounded(opened: Opened) -> None:
    events = await begun(opened, event_bytes=10)
    await events.keep("acme", "s", 1, numbered(b"aaaa", b"bbbb", b"cccc"), None)
    assert [event.id for event in (await events.after("acme", "s", 0, 10)).events] == [2, 3]
    await events.keep("acme", "s", 1, numbered(b"d" * 10, first=4), None)
    assert [event.id for event in (await events.after("acme", "s", 0, 10)).events] == [4]
    with pytest.raises(TooLarge, match="at most 10 bytes; came 11"):
        await events.keep("acme", "s", 1, numbered(b"e" * 11, first=5), None)


async def test_sound_is_forgotten_before_its_event(opened: Opened) -> None:
    events = await begun(opened, event_sound_bytes=10)
    sounds = tuple(LoggedEvent(n, b"spoken", bytes([n]) * 4) for n in (1, 2, 3))
    await events.keep("acme", "s", 1, [*sounds, LoggedEvent(4, b"silent")], None)
    page = await events.after("acme", "s", 0, 10)
    assert page.events == (LoggedEvent(1, b"spoken", None), *sounds[1:], LoggedEvent(4, b"silent"))
    with pytest.raises(TooLarge, match="at most 10 bytes; came 11"):
        await events.keep("acme", "s", 1, [LoggedEvent(5, b"", bytes(11))], None)


async def test_old_events_are_forgotten_while_others_come(opened: Opened) -> None:
    events = await begun(opened, event_seconds=0.8)
    await events.keep("acme", "s", 1, numbered(b"old"), None)
    await asyncio.sleep(0.5)
    await events.keep("acme", "s", 1, numbered(b"young", first=2), None)
    await asyncio.sleep(0.5)
    assert await events.after("acme", "s", 0, 10) == EventPage((LoggedEvent(2, b"young"),), 2, False)
    await events.keep("acme", "s", 1, numbered(b"new", first=3), None)
    assert [event.id for event in (await events.after("acme", "s", 1, 10)).events] == [2, 3]


async def test_another_tenants_events_are_unknown(opened: Opened) -> None:
    events = await begun(opened)
    await events.keep("acme", "s", 1, numbered(b"secret"), None)
    for guessed in ("s", "{acme}:events:s", ""):
        assert (await events.after("evil", guessed, 0, 10)).events == ()
    with pytest.raises(NotFound):
        await events.keep("evil", "s", 1, numbered(b"own", first=2), None)
    assert (await events.after("acme", "s", 0, 10)).events == (LoggedEvent(1, b"secret"),)


async def test_an_event_whose_answer_was_lost_is_there_once(redis_server: RedisServer) -> None:
    async with cutting_proxy(redis_server.port) as proxy, open_redis(proxy.url) as storage:
        events, told = open_sessions(storage, SessionSettings()).events, conversation("s_cut")
        await events.keep("acme", "s_cut", 0, numbered(b"one"), told)
        for number, of_conversation, version in ((2, None, 1), (3, told, 2)):
            proxy.answers_to_cut = 1
            assert (
                await events.keep(
                    "acme",
                    "s_cut",
                    version if of_conversation is None else version - 1,
                    numbered(b"next", first=number),
                    of_conversation,
                )
                == version
            )
        page = await events.after("acme", "s_cut", 0, 10)
        assert [event.data for event in page.events] == [b"one", b"next", b"next"]
