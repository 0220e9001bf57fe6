"""What a session tells ahead of the turn that is coming, by its core alone: when, and that it is exactly what comes."""

from dataclasses import replace

import pytest

from services.gateway.realtime.core.items import InputSound, UserItem
from services.gateway.realtime.core.outcomes import AnswerComing, AnswerForeseen, NothingForeseen, Outcomes
from services.gateway.realtime.core.session import Session
from services.gateway.realtime.core.turn_detection import WINDOW_MS, TurnDetection
from tests.gateway.realtime.sessions import (
    CONFIG,
    OPTIONS,
    WINDOW_BYTES,
    a_message,
    a_session,
    answer_aloud,
    listen,
    names,
    started,
)

DETECTION = TurnDetection(trailing_ms=192, foresees=True)
FORESEEING = replace(CONFIG, turn_detection=DETECTION)
PAUSE, END = "." * 6, "." * 16


def foreseen(outcomes: Outcomes) -> AnswerForeseen:
    (found,) = [outcome for outcome in outcomes if isinstance(outcome, AnswerForeseen)]
    return found


def coming(outcomes: Outcomes) -> list[AnswerComing]:
    return [outcome for outcome in outcomes if isinstance(outcome, AnswerComing)]


def sound_of(effect: AnswerComing | AnswerForeseen) -> InputSound:
    item = effect.items[-1]
    assert isinstance(item, UserItem)
    (part,) = item.parts
    assert isinstance(part, InputSound)
    return part


class TestPauses:
    def test_what_is_foreseen_at_a_pause_is_asked_at_its_end_and_nothing_else(self) -> None:
        session = a_session(FORESEEING)
        session.create_item(a_message("before"), None)
        told = foreseen(listen(session, "ssss" + PAUSE))
        outcomes = listen(session, "." * 10)
        start = started(outcomes)
        assert (told.options, told.items) == (start.response.options, start.items)
        assert names(outcomes)[-2:] == ["StartAnswer", "NothingForeseen"]

    def test_the_silence_that_is_kept_does_not_depend_on_the_silence_that_was_waited_for(self) -> None:
        for silence_ms in (192, 500, 1000):
            config = replace(CONFIG, turn_detection=replace(DETECTION, silence_ms=silence_ms))
            start = started(listen(a_session(config), "ssss" + "." * 40))
            (item,) = start.items
            assert isinstance(item, UserItem)
            assert isinstance(item.parts[0], InputSound)
            assert len(item.parts[0].pcm16) == 10 * WINDOW_BYTES

    def test_who_goes_on_to_speak_makes_it_void_and_is_foreseen_again(self) -> None:
        session = a_session(FORESEEING)
        first = foreseen(listen(session, "ssss" + PAUSE))
        assert names(listen(session, "..s")) == ["NothingForeseen"]
        again = foreseen(listen(session, "ss" + PAUSE))
        assert len(sound_of(again).pcm16) == len(sound_of(first).pcm16) + 11 * WINDOW_BYTES

    @pytest.mark.parametrize(
        "change",
        [
            lambda session: session.configure(replace(FORESEEING, answers=replace(OPTIONS, instructions="be brief"))),
            lambda session: session.create_item(a_message("another"), None),
            lambda session: session.delete_item("before"),
            lambda session: session.clear(),
            lambda session: session.commit(),
        ],
    )
    def test_what_is_changed_meanwhile_makes_it_void(self, change) -> None:  # type: ignore[no-untyped-def]
        session = a_session(FORESEEING)
        session.create_item(a_message("before"), None)
        listen(session, "ssss" + PAUSE)
        assert NothingForeseen() in change(session)
        assert NothingForeseen() not in change_again(session)

    @pytest.mark.parametrize(
        "detection",
        [
            replace(DETECTION, foresees=False),
            replace(DETECTION, creates_response=False),
            replace(DETECTION, silence_ms=160),
        ],
    )
    def test_nothing_is_foreseen_where_nothing_would_be_gained(self, detection: TurnDetection) -> None:
        session = a_session(replace(CONFIG, turn_detection=detection))
        assert {"AnswerForeseen", "NothingForeseen"}.isdisjoint(names(listen(session, "ssss" + END)))

    def test_nothing_is_foreseen_while_an_answer_goes_on_that_may_not_be_interrupted(self) -> None:
        session = a_session(replace(CONFIG, turn_detection=replace(DETECTION, interrupts_response=False)))
        session.respond(OPTIONS)
        assert "AnswerForeseen" not in names(listen(session, "ssss" + PAUSE))


def change_again(session: Session) -> Outcomes:
    return session.create_item(a_message("later"), None)


class TestBeginnings:
    def test_of_an_empty_session_nothing_is_known(self) -> None:
        session = a_session(FORESEEING, tells_beginnings=True)
        assert session.beginning() == []
        assert coming(listen(session, "ssss")) == []

    def test_instructions_and_answers_are_told_once_they_are_known(self) -> None:
        session = a_session(FORESEEING, tells_beginnings=True)
        options = replace(OPTIONS, instructions="be brief")
        (told,) = coming(session.configure(replace(FORESEEING, answers=options)))
        assert (told.options, told.items) == (options, ())
        answer_aloud(session, "hello", 1)
        (told,) = coming(listen(session, "ssss"))
        assert told.items == tuple(session.items)
        assert len(told.items) == 1

    def test_each_window_of_8_seconds_is_told_once_with_what_its_spectrum_needs(self) -> None:
        session = a_session(FORESEEING, tells_beginnings=True, buffer_seconds=60)
        told = coming(listen(session, "s" * (25_000 // WINDOW_MS)))
        assert [sound_of(effect).seconds for effect in told] == pytest.approx([8.1, 16.1, 24.1], abs=0.001)

    def test_a_user_who_says_himself_when_he_has_ended_is_read_meanwhile_too(self) -> None:
        session = a_session(CONFIG, tells_beginnings=True)
        told = [effect for _ in range(20) for effect in coming(session.hear(bytes(48_000), [], 0.0))]
        assert [sound_of(effect).seconds for effect in told] == pytest.approx([8.1, 16.1], abs=0.001)
        session.commit()
        assert coming(session.hear(bytes(48_000), [], 0.0)) == []

    def test_quiet_is_not_read(self) -> None:
        assert listen(a_session(FORESEEING, tells_beginnings=True), "." * 600) == []
