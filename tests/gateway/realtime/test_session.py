"""What a live session makes of commands and facts, told without a socket, a model or a clock."""

from dataclasses import replace
from typing import Any

import pytest

from antiphon.errors import InvalidInput
from services.gateway.realtime.core.items import AssistantItem, CallItem, InputSound, OutputSpeech, UserItem
from services.gateway.realtime.core.outcomes import (
    ArgumentsDone,
    IdleTimeout,
    ItemAdded,
    ItemDeleted,
    Outcomes,
    ResponseDone,
    SpeechStarted,
    SpeechStopped,
    StopAnswer,
    Transcribe,
)
from services.gateway.realtime.core.response import Failure, Usage
from services.gateway.realtime.core.session import Session
from services.gateway.realtime.core.turn_detection import TurnDetection
from tests.gateway.realtime.sessions import (
    CONFIG,
    LISTENING,
    OPTIONS,
    WINDOW_BYTES,
    a_message,
    a_session,
    answer_aloud,
    count_of,
    listen,
    names,
    started,
)

SPEECH = "ssss" + "." * 20


def only(outcomes: Outcomes, kind: type) -> Any:
    found = [outcome for outcome in outcomes if isinstance(outcome, kind)]
    assert len(found) == 1, names(outcomes)
    return found[0]


def transcript(session: Session, item_id: str) -> str:
    item = session.items.find(item_id)
    assert isinstance(item, AssistantItem)
    part = item.parts[0]
    assert isinstance(part, OutputSpeech)
    return part.transcript


class TestTurns:
    def test_a_turn_is_told_in_this_order(self) -> None:
        outcomes = listen(a_session(LISTENING), "....." + SPEECH)
        assert names(outcomes) == [
            "SpeechStarted",
            "ListenerStopped",
            "SpeechStopped",
            "BufferCommitted",
            "ItemAdded",
            "ItemDone",
            "ResponseCreated",
            "StartAnswer",
        ]
        assert started(outcomes).after_speech

    def test_a_turn_holds_its_padding_its_speech_and_its_silence(self) -> None:
        session = a_session(LISTENING)
        outcomes = listen(session, "." * 20 + SPEECH)
        began, ended = only(outcomes, SpeechStarted), only(outcomes, SpeechStopped)
        # 20 windows of quiet, less 300 ms; 4 of speech; silence until 500 ms are over.
        assert began.audio_start_ms == 20 * 32 - 300
        assert ended.audio_end_ms == 24 * 32 + 16 * 32
        item = session.items.find(ended.item_id)
        assert isinstance(item, UserItem)
        sound = item.parts[0]
        assert isinstance(sound, InputSound)
        assert sound.seconds * 1e3 == pytest.approx(ended.audio_end_ms - began.audio_start_ms, abs=0.1)

    def test_speech_that_begins_at_once_has_no_more_before_it_than_there_was(self) -> None:
        assert only(listen(a_session(LISTENING), "ss"), SpeechStarted).audio_start_ms == 0

    def test_one_loud_window_is_no_speech(self) -> None:
        assert listen(a_session(LISTENING), "..s...s..s..") == []

    def test_a_pause_shorter_than_the_silence_ends_nothing(self) -> None:
        assert count_of(listen(a_session(LISTENING), "ss" + "." * 15 + "ss" + "." * 15)) == {
            "SpeechStarted": 1,
            "ListenerStopped": 1,
        }

    def test_the_next_turn_begins_after_the_one_before(self) -> None:
        session = a_session(LISTENING)
        ended = only(listen(session, SPEECH), SpeechStopped)
        session.cancel(None)
        again = only(listen(session, "ss"), SpeechStarted)
        assert again.audio_start_ms >= ended.audio_end_ms
        assert again.item_id != ended.item_id

    def test_without_create_response_a_turn_is_only_kept(self) -> None:
        config = replace(LISTENING, turn_detection=TurnDetection(creates_response=False))
        assert "StartAnswer" not in names(listen(a_session(config), SPEECH))

    def test_who_may_not_interrupt_is_answered_afterwards(self) -> None:
        session = a_session(replace(LISTENING, turn_detection=TurnDetection(interrupts_response=False)))
        first = started(session.respond(OPTIONS)).response.id
        assert "StopAnswer" not in names(listen(session, SPEECH))
        ended = session.close_answer(first, lambda answer: answer.ended(is_cut=False))
        assert names(ended) == ["ResponseDone", "ResponseCreated", "StartAnswer"]

    def test_who_speaks_longer_than_the_buffer_holds_is_answered_in_between(self) -> None:
        outcomes = listen(a_session(LISTENING, buffer_seconds=1), "s" * 40)
        assert count_of(outcomes)["BufferCommitted"] == 1

    def test_quiet_is_not_kept_for_ever(self) -> None:
        session = a_session(LISTENING, quiet_seconds=1)
        listen(session, "." * 400)
        assert session.ears.buffer.held_ms <= 1000
        assert session.ears.buffer.end_ms == 400 * 32

    def test_a_listener_who_says_nothing_is_spoken_to_after_a_while(self) -> None:
        session = a_session(replace(LISTENING, turn_detection=TurnDetection(idle_ms=5000)))
        answer_aloud(session, "hello", 1)
        session.played_until(10.0)
        assert listen(session, "." * 200, now=14.9) == []
        outcomes = listen(session, ".", now=15.1)
        fact = only(outcomes, IdleTimeout)
        assert fact.audio_end_ms - fact.audio_start_ms == 5000
        assert names(outcomes)[1:4] == ["BufferCommitted", "ItemAdded", "ItemDone"]
        assert not started(outcomes).after_speech
        assert listen(session, ".", now=30.0) == []

    def test_what_was_said_is_written_down_where_it_is_wanted(self) -> None:
        session = a_session(replace(LISTENING, transcribes=True))
        wanted = only(listen(session, SPEECH), Transcribe)
        session.transcribed(wanted.item_id, 0, "what is it", Usage(1, 2, 0, 0, 3, 0))
        item = session.items.find(wanted.item_id)
        assert isinstance(item, UserItem)
        assert item.parts[0] == replace(wanted.sound, transcript="what is it")

    def test_who_speaks_in_a_full_conversation_is_heard(self) -> None:
        session = a_session(LISTENING, items=3)
        for number in range(3):
            session.create_item(a_message(f"m{number}"), None)
        outcomes = listen(session, SPEECH)
        assert only(outcomes, ItemDeleted).item_id == "m0"
        assert [item.id for item in session.items][:2] == ["m1", "m2"]


class TestBuffer:
    def test_a_commit_takes_all_that_is_there(self) -> None:
        session = a_session()
        listen(session, "." * 10)
        assert names(session.commit()) == ["BufferCommitted", "ItemAdded", "ItemDone"]
        assert session.ears.buffer.held_ms == 0

    def test_too_little_cannot_be_committed(self) -> None:
        session = a_session()
        listen(session, "...")
        with pytest.raises(InvalidInput) as refused:
            session.commit()
        assert refused.value.code == "input_audio_buffer_commit_empty"

    def test_what_was_cleared_is_gone(self) -> None:
        session = a_session()
        listen(session, "." * 10)
        assert names(session.clear()) == ["BufferCleared"]
        with pytest.raises(InvalidInput):
            session.commit()

    def test_a_commit_in_mid_speech_is_the_announced_item(self) -> None:
        session = a_session(LISTENING)
        announced = only(listen(session, "ss" * 4), SpeechStarted).item_id
        assert only(session.commit(), ItemAdded).item.id == announced
        assert listen(session, "." * 20) == []

    def test_more_than_it_holds_is_refused(self) -> None:
        session = a_session(buffer_seconds=1)
        with pytest.raises(InvalidInput) as refused:
            session.hear(bytes(3 * 48_000), [], 0.0)
        assert refused.value.code == "input_audio_buffer_full"

    def test_another_encoding_begins_anew(self) -> None:
        session = a_session(LISTENING)
        listen(session, "." * 10)
        session.configure(replace(LISTENING, input_encoding="pcmu"))
        assert session.ears.buffer.held_ms == 0
        assert session.ears.buffer.end_ms == 320


class TestItems:
    def test_items_stand_where_they_were_put(self) -> None:
        session = a_session()
        session.create_item(a_message("b"), None)
        session.create_item(a_message("d"), None)
        assert only(session.create_item(a_message("a"), "root"), ItemAdded).previous_id is None
        assert only(session.create_item(a_message("c"), "b"), ItemAdded).previous_id == "b"
        assert [item.id for item in session.items] == ["a", "b", "c", "d"]

    def test_a_full_conversation_takes_no_more(self) -> None:
        session = a_session(item_bytes=100)
        session.create_item(a_message("a", "x" * 90), None)
        with pytest.raises(InvalidInput) as refused:
            session.create_item(a_message("b", "x" * 20), None)
        assert refused.value.code == "conversation_full"
        session.delete_item("a")
        session.create_item(a_message("b", "x" * 20), None)


class TestAnswers:
    def test_a_spoken_answer_is_told_in_this_order(self) -> None:
        session = a_session()
        outcomes = session.respond(OPTIONS)
        response_id = started(outcomes).response.id
        answer = session.answering(response_id)
        assert answer is not None
        outcomes += answer.said("the cat")
        outcomes += session.answer_spoke(response_id, 2400, b"1", 0.1)
        outcomes += session.close_answer(response_id, lambda a: a.ended(is_cut=False))
        assert names(outcomes) == [
            "ResponseCreated",
            "StartAnswer",
            "OutputAdded",
            "ItemAdded",
            "PartAdded",
            "TextPiece",
            "SoundPiece",
            "SoundDone",
            "TextDone",
            "PartDone",
            "ItemDone",
            "OutputDone",
            "ResponseDone",
        ]

    def test_a_call_is_told_in_this_order_after_the_message_before_it(self) -> None:
        session = a_session()
        response_id = started(session.respond(OPTIONS)).response.id
        answer = session.answering(response_id)
        assert answer is not None
        outcomes = answer.said("wait") + answer.called("look") + answer.argued('{"a":') + answer.argued("1}")
        outcomes += session.close_answer(response_id, lambda a: a.ended(is_cut=False))
        assert names(outcomes)[-9:] == [
            "OutputDone",
            "OutputAdded",
            "ItemAdded",
            "ArgumentsPiece",
            "ArgumentsPiece",
            "ArgumentsDone",
            "ItemDone",
            "OutputDone",
            "ResponseDone",
        ]
        done = only(outcomes, ArgumentsDone)
        assert (done.name, done.arguments, done.place.output_index) == ("look", '{"a":1}', 1)
        last = list(session.items)[-1]
        assert isinstance(last, CallItem)
        assert last.arguments == '{"a":1}'

    def test_a_call_that_was_cut_off_is_not_done(self) -> None:
        session = a_session()
        response_id = started(session.respond(OPTIONS)).response.id
        answer = session.answering(response_id)
        assert answer is not None
        answer.called("look")
        outcomes = session.cancel(response_id)
        assert "ArgumentsDone" not in names(outcomes)
        assert list(session.items)[-1].status == "incomplete"

    @pytest.mark.parametrize("is_cut", [False, True])
    def test_an_answer_cut_by_its_bound_is_incomplete(self, is_cut: bool) -> None:
        session = a_session()
        response_id = started(session.respond(OPTIONS)).response.id
        done = only(session.close_answer(response_id, lambda a: a.ended(is_cut=is_cut)), ResponseDone).response
        assert (done.status, done.reason) == (("incomplete", "max_output_tokens") if is_cut else ("completed", None))

    def test_a_failed_answer_says_why(self) -> None:
        session = a_session()
        response_id = started(session.respond(OPTIONS)).response.id
        failure = Failure("server_error", "unavailable", "away")
        done = only(session.close_answer(response_id, lambda a: a.failed(failure)), ResponseDone).response
        assert (done.status, done.failure) == ("failed", failure)
        session.respond(OPTIONS)

    def test_an_answer_beside_the_conversation_leaves_nothing_in_it(self) -> None:
        session = a_session()
        session.create_item(a_message("m"), None)
        outcomes = session.respond(OPTIONS, in_conversation=False, items=(a_message("x"),))
        assert [item.id for item in started(outcomes).items] == ["x"]
        response_id = started(outcomes).response.id
        answer = session.answering(response_id)
        assert answer is not None
        outcomes = answer.said("aside") + session.close_answer(response_id, lambda a: a.ended(is_cut=False))
        assert not {"ItemAdded", "ItemDone"} & set(names(outcomes))
        assert [item.id for item in session.items] == ["m"]

    def test_answers_beside_the_conversation_run_with_its_own(self) -> None:
        session = a_session(side_responses=1)
        session.respond(OPTIONS)
        session.respond(OPTIONS, in_conversation=False)
        with pytest.raises(InvalidInput) as refused:
            session.respond(OPTIONS, in_conversation=False)
        assert refused.value.code == "too_many_responses"
        with pytest.raises(InvalidInput) as refused:
            session.respond(OPTIONS)
        assert refused.value.code == "conversation_already_has_active_response"

    def test_the_voice_is_fixed_once_it_was_heard(self) -> None:
        session = a_session()
        other = replace(CONFIG, answers=replace(OPTIONS, voice="chelsie"))
        session.configure(other)
        answer_aloud(session, "hello", 1)
        session.configure(other)
        with pytest.raises(InvalidInput) as refused:
            session.configure(CONFIG)
        assert refused.value.code == "cannot_update_voice"


class TestInterruption:
    def test_speech_stops_the_answer_in_this_order(self) -> None:
        session = a_session(LISTENING)
        response_id = started(session.respond(OPTIONS)).response.id
        answer = session.answering(response_id)
        assert answer is not None
        answer.said("the cat is black")
        session.answer_spoke(response_id, 24_000, b"1", 0.0)
        outcomes = listen(session, "ss")
        assert names(outcomes) == [
            "SpeechStarted",
            "ListenerStopped",
            "StopAnswer",
            "SoundDone",
            "TextDone",
            "PartDone",
            "ItemDone",
            "OutputDone",
            "ResponseDone",
        ]
        done = only(outcomes, ResponseDone).response
        assert (done.status, done.reason, done.output[0].status) == ("cancelled", "turn_detected", "incomplete")
        assert session.answering(response_id) is None
        assert session.answer_spoke(response_id, 10, b"late", 0.0) == []

    def test_an_answer_beside_the_conversation_is_not_stopped_by_speech(self) -> None:
        session = a_session(LISTENING)
        session.respond(OPTIONS, in_conversation=False)
        assert "StopAnswer" not in names(listen(session, "ss"))

    def test_a_client_cancels_the_one_that_it_names(self) -> None:
        session = a_session()
        session.respond(OPTIONS)
        aside = started(session.respond(OPTIONS, in_conversation=False)).response.id
        outcomes = session.cancel(aside)
        assert only(outcomes, StopAnswer).response_id == aside
        assert only(outcomes, ResponseDone).response.reason == "client_cancelled"

    @pytest.mark.parametrize(
        ("heard_ms", "kept"),
        [(0, ""), (249, ""), (750, "one"), (1000, "one"), (2400, "one two three"), (4000, "one two three four five")],
    )
    def test_the_conversation_keeps_the_words_that_were_heard(self, heard_ms: int, kept: str) -> None:
        session = a_session()
        # 23 letters in four seconds: 174 ms a letter.
        item_id = answer_aloud(session, "one two three four five", 4.0)
        session.truncate_item(item_id, 0, heard_ms)
        assert transcript(session, item_id) == kept

    def test_what_was_cut_cannot_be_longer_again(self) -> None:
        session = a_session()
        item_id = answer_aloud(session, "one two", 2.0)
        session.truncate_item(item_id, 0, 1000)
        with pytest.raises(InvalidInput) as refused:
            session.truncate_item(item_id, 0, 1001)
        assert (refused.value.param, "1000 ms" in refused.value.message) == ("audio_end_ms", True)

    def test_only_what_was_spoken_here_can_be_truncated(self) -> None:
        session = a_session()
        session.create_item(a_message("m"), None)
        with pytest.raises(InvalidInput) as refused:
            session.truncate_item("m", 0, 0)
        assert refused.value.code == "item_truncate_invalid_item_id"


def test_each_window_is_heard_once_however_sound_is_cut() -> None:
    """The core gets whole windows; what it keeps is the sound, to the byte."""
    session = a_session()
    sound = bytes(range(256)) * (WINDOW_BYTES // 64)
    for start in range(0, len(sound), 1000):
        session.hear(sound[start : start + 1000], [], 0.0)
    item = only(session.commit(), ItemAdded).item
    assert item.parts[0].pcm16 == sound
