"""What waits to be kept of a live session is bounded."""

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from antiphon.errors import AntiphonError, AtCapacity, TooLarge
from antiphon.sessions.conversation import Conversation
from antiphon.sessions.conversation_store import MemoryConversationStore
from antiphon.sessions.event_log import LoggedEvent, MemoryEventLog
from antiphon.sessions.opening import sessions_in_memory
from antiphon.sessions.settings import SessionSettings
from services.gateway.realtime.core.outcomes import SessionUpdated
from services.gateway.realtime.dialect.frames import Numbering
from services.gateway.realtime.keeping import Keeping
from services.gateway.realtime.kept_session import KeptSession
from services.gateway.realtime.session_keeper import SessionKeeper

SESSION_ID = "sess_" + "0" * 24


def test_events_of_a_session_that_nothing_is_kept_of_yet_are_bounded_in_bytes() -> None:
    settings = SessionSettings(event_bytes=10_000)
    keeper = SessionKeeper.of(sessions_in_memory(settings), settings, patience_seconds=0.05)
    session = KeptSession({}, (), has_spoken=False, connection_id="c")
    keeping = Keeping(keeper, "acme", SESSION_ID, lambda: session, lambda _: None, None, goes_on=False)
    numbering, told = Numbering(SESSION_ID), []
    for _ in range(1000):
        frame = numbering.frame({"type": "input_audio_buffer.cleared"})
        keeping.told(None, frame)
        told.append((weakref.ref(frame), frame.size_bytes, frame.number))
    del frame
    held = [(size, number) for known, size, number in told if known() is not None]
    assert 0 < sum(size for size, _ in held) <= 10_000
    assert held[-1][1] == 1000, "the newest"


class RefusingLog(MemoryEventLog):
    """While it has an error to raise."""

    error: AntiphonError | None = None
    attempts = 0

    async def keep(
        self, tenant: str, conversation_id: str, version: int, events: Sequence[LoggedEvent], told: Conversation | None
    ) -> int:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        return await super().keep(tenant, conversation_id, version, events, told)


@pytest.fixture
def log() -> RefusingLog:
    settings = SessionSettings()
    return RefusingLog(MemoryConversationStore(settings), settings)


@asynccontextmanager
async def keeping_in(log: RefusingLog) -> AsyncIterator[Keeping]:
    settings = SessionSettings()
    keeper = replace(SessionKeeper.of(sessions_in_memory(settings), settings, patience_seconds=0.05), events=log)
    session = KeptSession({}, (), has_spoken=False, connection_id="c")
    keeping = Keeping(keeper, "acme", SESSION_ID, lambda: session, lambda _: None, None, goes_on=False)
    running = asyncio.create_task(keeping.run())
    yield keeping
    running.cancel()
    await asyncio.wait([running])


async def test_a_session_can_go_on_elsewhere_once_it_is_kept_until_it_is_too_large_to_be(log: RefusingLog) -> None:
    numbering = Numbering(SESSION_ID)
    async with keeping_in(log) as keeping:
        assert not keeping.can_go_on_elsewhere
        frame = numbering.frame({"type": "session.updated"})
        keeping.told(SessionUpdated(), frame)
        assert await keeping.kept(frame.number)
        assert keeping.can_go_on_elsewhere

        log.error = TooLarge("The conversation is too large.")
        frame = numbering.frame({"type": "session.updated"})
        keeping.told(SessionUpdated(), frame)
        assert await keeping.kept(frame.number), "its client is served all the same"
        assert not keeping.can_go_on_elsewhere


async def test_a_session_that_ends_does_not_wait_for_room(log: RefusingLog) -> None:
    log.error = AtCapacity("No room is left.", retry_after_seconds=1.0)
    async with keeping_in(log) as keeping:
        keeping.told(SessionUpdated(), Numbering(SESSION_ID).frame({"type": "session.updated"}))
        await asyncio.sleep(0.05)
    began, attempts = time.monotonic(), log.attempts
    await keeping.finish()
    assert log.attempts == attempts + 1
    assert time.monotonic() - began < 0.3


async def test_a_session_that_there_is_no_room_for_is_tried_more_and_more_seldom(
    log: RefusingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.realtime.keeping._PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("services.gateway.realtime.keeping._LONGEST_PAUSE_SECONDS", 0.16)
    log.error = AtCapacity("No room is left.", retry_after_seconds=1.0)
    async with keeping_in(log) as keeping:
        keeping.told(SessionUpdated(), Numbering(SESSION_ID).frame({"type": "session.updated"}))
        await asyncio.sleep(0.5)
        assert 2 <= log.attempts <= 7, "at 0, 10, 30, 70, 150, 310 and 470 ms"

        log.error = None
        async with asyncio.timeout(5):
            while not keeping.can_go_on_elsewhere:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
