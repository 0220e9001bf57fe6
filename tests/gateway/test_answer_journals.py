"""What is kept of a streamed answer, and when."""

import asyncio
import threading
from typing import cast

import pytest

from antiphon.errors import InvalidInput, NotFound, Unavailable
from antiphon.prompt.conversation import Conversation, Message, Text
from antiphon.sessions.opening import open_sessions
from antiphon.sessions.settings import SessionSettings
from antiphon.sessions.turn_journal import TurnJournal, TurnWriter
from antiphon.telemetry.metrics import process_metrics
from antiphon.v1.generation_pb2 import Sampling
from services.gateway.turns import answer_journal
from services.gateway.turns.answer_journal import AnswerJournals, KeptTurn
from services.gateway.turns.record import TurnRecord, pack_record
from services.gateway.turns.request import TurnRequest
from services.gateway.turns.usage import TurnUsage


def turn(said: str) -> KeptTurn:
    conversation = Conversation((Message("user", (Text(said),)),))
    return KeptTurn(TurnRequest(conversation, (), Sampling(), None, (), None), 1, "")


def built() -> TurnUsage:
    """Of a turn whose prompt is known."""
    usage = TurnUsage()
    usage.prompt_is_built.set()
    return usage


@pytest.mark.parametrize(("length", "is_elsewhere"), [(10, False), (1 << 17, True)])
async def test_a_long_conversation_is_packed_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, length: int, is_elsewhere: bool
) -> None:
    packed_in: list[int] = []

    def noted(record: TurnRecord) -> bytes:
        packed_in.append(threading.get_ident())
        return pack_record(record)

    monkeypatch.setattr(answer_journal, "pack_record", noted)
    journals = AnswerJournals.of(open_sessions(None, SessionSettings()), SessionSettings())
    async with journals.begun("acme", "answer", turn("x" * length), built()) as journal:
        await journal.wait(5)
        assert journal.is_kept()
    assert [where != threading.get_ident() for where in packed_in] == [is_elsewhere]


@pytest.mark.parametrize("written", [0, 3])
async def test_of_a_turn_that_was_refused_nothing_is_kept(written: int) -> None:
    sessions = open_sessions(None, SessionSettings())
    journals, usage = AnswerJournals.of(sessions, SessionSettings()), built()

    async def refused() -> None:
        async with journals.begun("acme", "answer", turn("hi"), usage) as journal:
            await journal.wait(5)
            usage.text_tokens = written
            raise InvalidInput("The prompt is too long.")

    with pytest.raises(InvalidInput):
        await refused()
    if written:
        assert (await sessions.journal.read("acme", "answer")).charged is not None
    else:
        with pytest.raises(NotFound):
            await sessions.journal.read("acme", "answer")


async def test_an_answer_that_fails_where_it_goes_on_can_be_gone_on_with_again() -> None:
    sessions = open_sessions(None, SessionSettings())
    journals = AnswerJournals.of(sessions, SessionSettings())
    await sessions.journal.begin("acme", "answer", b"asked")

    async def fails() -> None:
        async with journals.taken_over("acme", "answer", TurnUsage()):
            raise Unavailable("A stage is away.")

    for _ in range(2):
        with pytest.raises(Unavailable):
            await fails()


class RefusedToBegin:
    """A journal that must not be asked."""

    async def begin(self, tenant: str, turn_id: str, record: bytes) -> TurnWriter:
        raise AssertionError("The journal began before the prompt had been checked.")


async def test_of_a_turn_whose_prompt_is_refused_no_journal_begins() -> None:
    sessions = open_sessions(None, SessionSettings())
    journals = AnswerJournals(cast(TurnJournal, RefusedToBegin()), sessions.media, SessionSettings())

    async def refused() -> None:
        async with journals.begun("acme", "answer", turn("hi"), TurnUsage()) as journal:
            await asyncio.sleep(0)
            assert not journal.is_kept()
            raise InvalidInput("The prompt is too long.")

    async with asyncio.timeout(10):
        with pytest.raises(InvalidInput):
            await refused()


async def test_a_turn_whose_tenant_has_no_room_for_its_journal_is_not_kept_and_counted() -> None:
    settings, counted = SessionSettings(turn_journal_bytes=1), process_metrics().cut_journals
    journals = AnswerJournals.of(open_sessions(None, settings), settings)
    before = next(iter(counted.collect())).samples[0].value
    async with journals.begun("acme", "answer", turn("hi"), built()) as journal:
        await journal.wait(5)
        assert not journal.is_kept()
        journal.recorder.record((1,))
    assert next(iter(counted.collect())).samples[0].value == before + 1
