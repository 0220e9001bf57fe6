"""A running turn is written by one gateway at a time and read by any; what is written beside it never holds it up."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from antiphon.errors import Conflict, NotFound, TooLarge, Unavailable
from antiphon.sessions.opening import open_sessions
from antiphon.sessions.progress import Progress
from antiphon.sessions.settings import SessionSettings
from antiphon.sessions.turn_journal import Charged, TurnWriter
from antiphon.sessions.turn_recorder import recording
from antiphon.storage.connection import Storage, open_redis
from tests.cutting_proxy import cutting_proxy
from tests.redis_server import RedisServer
from tests.sessions.conftest import Opened
from tests.sessions.conversations import frames


def progress(*token_ids: int, frame_count: int = 0, first_frame: int = 0) -> Progress:
    return Progress(np.array(token_ids, np.int32), frames(frame_count, first_frame))


async def test_a_turn_is_read_as_far_as_it_was_written(opened: Opened) -> None:
    journal = opened().journal
    writer = await journal.begin("acme", "turn_1", b"\x00what was asked\xff")
    assert (await journal.read("acme", "turn_1")).progress == Progress()
    assert await journal.size_bytes("acme", "turn_1") == len(b"\x00what was asked\xff")
    await writer.append(progress(151_644, 0, frame_count=2))
    await writer.append(progress(-1))
    await writer.append(progress(frame_count=1, first_frame=2))
    turn = await journal.read("acme", "turn_1")
    assert turn.record == b"\x00what was asked\xff"
    assert turn.progress == progress(151_644, 0, -1, frame_count=3)
    assert await journal.size_bytes("acme", "turn_1") == len(turn.record) + turn.progress.size_bytes
    assert not turn.is_finished
    await writer.finish()
    assert (await journal.read("acme", "turn_1")).is_finished


async def test_what_is_charged_is_known_to_who_takes_over_and_only_he_charges_the_rest(opened: Opened) -> None:
    journal = opened().journal
    first = await journal.begin("acme", "turn_1", b"asked")
    assert (await journal.read("acme", "turn_1")).charged is None
    await first.append(progress(1, 2, frame_count=1))
    await first.charge(Charged(2, 1, 1365))
    turn, second = await journal.take_over("acme", "turn_1")
    assert turn.charged == Charged(2, 1, 1365)
    with pytest.raises(Conflict):
        await first.charge(Charged(9, 9, 9))
    await second.charge(Charged(3, 4, 7125))
    assert (await journal.read("acme", "turn_1")).charged == Charged(3, 4, 7125)


async def test_who_takes_over_goes_on_and_the_one_before_is_told(opened: Opened) -> None:
    journal = opened().journal
    first = await journal.begin("acme", "turn_1", b"asked")
    await first.append(progress(1, 2, frame_count=1))
    turn, second = await journal.take_over("acme", "turn_1")
    assert turn.progress == progress(1, 2, frame_count=1)
    for late in (first.append(progress(99)), first.finish()):
        with pytest.raises(Conflict) as refused:
            await late
        assert refused.value.code == "taken_over"
    await second.append(progress(3, frame_count=1, first_frame=1))
    _, third = await journal.take_over("acme", "turn_1")
    with pytest.raises(Conflict):
        await second.append(progress(99))
    await third.finish()
    turn = await journal.read("acme", "turn_1")
    assert turn.progress == progress(1, 2, 3, frame_count=2)
    assert turn.is_finished


async def test_of_many_who_take_over_at_once_only_the_last_writes(opened: Opened) -> None:
    journal = opened().journal
    await journal.begin("acme", "turn_1", b"asked")
    taken = await asyncio.gather(*(journal.take_over("acme", "turn_1") for _ in range(8)))
    outcomes = await asyncio.gather(*(writer.append(progress(7)) for _, writer in taken), return_exceptions=True)
    assert outcomes.count(None) == 1
    assert (await journal.read("acme", "turn_1")).progress == progress(7)


async def test_a_turn_that_is_dropped_is_forgotten_but_not_by_who_lost_it(opened: Opened) -> None:
    journal = opened().journal
    first = await journal.begin("acme", "turn_1", b"asked")
    await first.append(progress(1, frame_count=1))
    _, second = await journal.take_over("acme", "turn_1")
    with pytest.raises(Conflict):
        await first.drop()
    await second.drop()
    for gone in (journal.read("acme", "turn_1"), second.append(progress(2))):
        with pytest.raises(NotFound):
            await gone
    again = await journal.begin("acme", "turn_1", b"again")
    await again.append(progress(3))
    assert (await journal.read("acme", "turn_1")).progress == progress(3)


async def test_a_turn_begins_once(opened: Opened) -> None:
    journal = opened().journal
    await journal.begin("acme", "turn_1", b"asked")
    with pytest.raises(Conflict):
        await journal.begin("acme", "turn_1", b"asked something else")
    assert (await journal.read("acme", "turn_1")).record == b"asked"


async def test_another_tenants_turn_is_unknown(opened: Opened) -> None:
    journal = opened().journal
    await journal.begin("acme", "turn_1", b"asked")
    for guessed in ("turn_1", "{acme}:turn:turn_1", ""):
        with pytest.raises(NotFound):
            await journal.read("evil", guessed)
        with pytest.raises(NotFound):
            await journal.size_bytes("evil", guessed)
        with pytest.raises(NotFound):
            await journal.take_over("evil", guessed)
    await journal.begin("evil", "turn_1", b"else")
    assert (await journal.read("acme", "turn_1")).record == b"asked"


async def test_record_and_progress_have_bounds(opened: Opened) -> None:
    journal = opened(turn_record_bytes=10, turn_progress_bytes=40).journal
    with pytest.raises(TooLarge, match="at most 10 bytes; came 11"):
        await journal.begin("acme", "turn_1", bytes(11))
    writer = await journal.begin("acme", "turn_1", bytes(10))
    await writer.append(progress(1, 2, frame_count=1))
    with pytest.raises(TooLarge, match="at most 40 bytes; came 44"):
        await writer.append(progress(3))


async def test_the_journals_of_a_tenant_have_a_bound_together(opened: Opened) -> None:
    journal = opened(turn_journal_bytes=40).journal
    first = await journal.begin("acme", "turn_1", bytes(10))
    second = await journal.begin("acme", "turn_2", bytes(10))
    await first.append(progress(1, 2, 3))
    with pytest.raises(TooLarge, match="at most 40 bytes together"):
        await second.append(progress(1, 2, 3))
    with pytest.raises(TooLarge, match="at most 40 bytes together"):
        await journal.begin("acme", "turn_3", bytes(10))
    await second.append(progress(1, 2))
    assert (await journal.read("acme", "turn_1")).progress == progress(1, 2, 3)
    assert (await journal.read("acme", "turn_2")).progress == progress(1, 2)
    await (await journal.begin("other", "turn_1", bytes(40))).finish()


async def test_a_full_journal_is_ended_charged_and_taken_over_all_the_same(opened: Opened) -> None:
    journal = opened(turn_journal_bytes=14).journal
    first = await journal.begin("acme", "turn_1", bytes(10))
    await first.append(progress(1))
    turn, second = await journal.take_over("acme", "turn_1")
    assert turn.progress == progress(1)
    with pytest.raises(TooLarge):
        await second.append(progress(2))
    await second.charge(Charged(1, 0, 0))
    await second.finish()
    assert (await journal.read("acme", "turn_1")).is_finished


async def test_a_turn_that_is_dropped_leaves_its_room_to_others(opened: Opened) -> None:
    journal = opened(turn_journal_bytes=30).journal
    first = await journal.begin("acme", "turn_1", bytes(10))
    await first.append(progress(1, 2, 3, 4, 5))
    await first.drop()
    again = await journal.begin("acme", "turn_1", bytes(10))
    await again.append(progress(1, 2, 3, 4, 5))
    with pytest.raises(TooLarge):
        await journal.begin("acme", "turn_2", bytes(1))


async def test_turns_that_were_forgotten_leave_their_room_to_others(opened: Opened) -> None:
    journal = opened(turn_journal_bytes=20, turn_seconds=0.4).journal
    await journal.begin("acme", "turn_1", bytes(10))
    await asyncio.sleep(0.25)
    kept = await journal.begin("acme", "turn_2", bytes(10))
    await asyncio.sleep(0.25)
    await kept.charge(Charged(0, 0, 0))
    last = await journal.begin("acme", "turn_3", bytes(6))
    await last.append(progress(1))
    with pytest.raises(TooLarge):
        await last.append(progress(2))


async def test_a_turn_is_forgotten_some_time_after_its_last_write(opened: Opened) -> None:
    journal = opened(turn_seconds=0.4).journal
    writer = await journal.begin("acme", "turn_1", b"asked")
    await asyncio.sleep(0.25)
    await writer.append(progress(1))
    await asyncio.sleep(0.25)
    assert (await journal.read("acme", "turn_1")).progress == progress(1)
    await asyncio.sleep(0.25)
    with pytest.raises(NotFound, match="expired"):
        await journal.read("acme", "turn_1")
    with pytest.raises(NotFound):
        await writer.append(progress(2))


async def test_what_was_written_without_an_answer_is_not_written_twice(redis_server: RedisServer) -> None:
    """Both tries of the first call are carried out and never answered; the second call has more behind it."""
    async with cutting_proxy(redis_server.port) as proxy, open_redis(proxy.url) as storage:
        journal = open_sessions(storage, SessionSettings()).journal
        writer = await journal.begin("acme", "turn_cut", b"asked")
        await writer.append(progress(1))
        proxy.answers_to_cut = 2
        with pytest.raises(Unavailable):
            await writer.append(progress(2, frame_count=1))
        assert (await journal.read("acme", "turn_cut")).progress == progress(1, 2, frame_count=1)
        await writer.append(progress(2, 3, frame_count=2))
        assert (await journal.read("acme", "turn_cut")).progress == progress(1, 2, 3, frame_count=2)


# Beside the turn


async def test_what_is_recorded_is_written_together(opened: Opened) -> None:
    journal = opened().journal
    writer = _Counting(await journal.begin("acme", "turn_1", b"asked"))
    async with recording(writer, SessionSettings(turn_write_seconds=0.05)) as recorder:
        for n in range(40):
            recorder.record([n], frames(1, n))
        await _until(lambda: writer.append_count > 0)
        assert (await journal.read("acme", "turn_1")).progress == progress(*range(40), frame_count=40)
        recorder.record([40])
    assert writer.append_count == 2
    turn = await journal.read("acme", "turn_1")
    assert turn.progress == progress(*range(41), frame_count=40)
    assert turn.is_finished


async def test_a_turn_that_breaks_off_is_written_but_not_finished(opened: Opened) -> None:
    journal = opened().journal
    writer = await journal.begin("acme", "turn_1", b"asked")

    async def break_off() -> None:
        async with recording(writer, SessionSettings()) as recorder:
            recorder.record([1, 2])
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await break_off()
    turn = await journal.read("acme", "turn_1")
    assert turn.progress == progress(1, 2)
    assert not turn.is_finished


async def test_a_turn_that_goes_on_elsewhere_is_told_so(opened: Opened) -> None:
    journal = opened().journal
    writer = await journal.begin("acme", "turn_1", b"asked")
    async with recording(writer, SessionSettings(turn_write_seconds=0.01)) as recorder:
        await journal.take_over("acme", "turn_1")
        recorder.record([1])
        await asyncio.wait_for(recorder.taken_over.wait(), 5)
    turn = await journal.read("acme", "turn_1")
    assert turn.progress == Progress()
    assert not turn.is_finished


async def test_a_turn_longer_than_a_journal_goes_on_without_one(
    opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened().journal
    writer = await journal.begin("acme", "turn_1", b"asked")
    async with recording(writer, SessionSettings(turn_progress_bytes=8)) as recorder:
        recorder.record([1, 2])
        recorder.record([3])
        recorder.record([4])
    assert recorder.has_given_up
    assert "longer than a journal" in caplog.text
    assert not (await journal.read("acme", "turn_1")).is_finished


async def test_while_redis_is_away_a_turn_goes_on_and_is_written_when_it_is_back(
    storage: Storage, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.sessions.turn_recorder._PAUSE_SECONDS", 0.05)
    journal = open_sessions(storage, SessionSettings()).journal
    writer = await journal.begin("acme", "turn_1", b"asked")
    async with recording(writer, SessionSettings(turn_write_seconds=0.01)) as recorder:
        recorder.record([1])
        await _until(lambda: not recorder._waiting)
        redis_server.kill()
        recorder.record([2], frames(1))
        await asyncio.sleep(0.2)
        recorder.record([3])
        redis_server.start()
        await _until(lambda: not recorder._waiting)
    turn = await journal.read("acme", "turn_1")
    assert turn.progress == progress(1, 2, 3, frame_count=1)
    assert turn.is_finished


async def test_a_turn_ends_well_where_redis_stays_away(redis_server: RedisServer, storage: Storage) -> None:
    journal = open_sessions(storage, SessionSettings()).journal
    writer = await journal.begin("acme", "turn_1", b"asked")
    redis_server.kill()
    try:
        async with recording(writer, SessionSettings(turn_write_seconds=0.01)) as recorder:
            recorder.record([1])
            await asyncio.sleep(0.1)
    finally:
        redis_server.start()


class _Counting:
    def __init__(self, writer: TurnWriter) -> None:
        self._writer = writer
        self.append_count = 0
        self.finish = writer.finish

    async def append(self, progress: Progress) -> None:
        await self._writer.append(progress)
        self.append_count += 1


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event
            await asyncio.sleep(0.005)
