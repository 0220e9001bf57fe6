"""What a conversation keeps of an answer that is given faster than it can be heard, and interrupted."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from antiphon.errors import InvalidInput
from antiphon.prompt.prompt import PromptBuilder
from services.gateway.realtime.core.items import AssistantItem, OutputSpeech
from services.gateway.realtime.core.outcomes import ItemTruncated, Outcomes
from services.gateway.realtime.core.session import Session
from services.gateway.realtime.core.turn_detection import TurnDetection
from tests.gateway.conftest import Fakes
from tests.gateway.realtime.live import heard, live
from tests.gateway.realtime.sessions import LISTENING, a_session, answer_aloud, listen

# 23 letters in four seconds: 174 ms a letter.
TEXT = "one two three four five"
SECONDS = 4.0


def kept(session: Session, item_id: str) -> str:
    item = session.items.find(item_id)
    assert isinstance(item, AssistantItem)
    (part,) = item.parts
    assert isinstance(part, OutputSpeech)
    return part.transcript


def cuts(outcomes: Outcomes) -> list[ItemTruncated]:
    return [outcome for outcome in outcomes if isinstance(outcome, ItemTruncated)]


@pytest.mark.parametrize(
    ("at_seconds", "words"), [(0.0, ""), (0.75, "one"), (2.4, "one two three"), (4.0, TEXT), (9.0, TEXT)]
)
def test_a_whole_answer_keeps_what_can_have_been_heard_of_it(at_seconds: float, words: str) -> None:
    session = a_session(LISTENING)
    item_id = answer_aloud(session, TEXT, SECONDS, heard_by=SECONDS)
    outcomes = listen(session, "ss", at_seconds)
    assert kept(session, item_id) == words
    ends_ms = [cut.audio_end_ms for cut in cuts(outcomes)]
    assert ends_ms == ([round(at_seconds * 1e3)] if at_seconds < SECONDS else [])


def test_an_answer_behind_one_that_is_still_being_heard_was_not_said() -> None:
    session = a_session(LISTENING)
    first = answer_aloud(session, TEXT, SECONDS, heard_by=SECONDS)
    second = answer_aloud(session, TEXT, SECONDS, heard_by=2 * SECONDS)
    listen(session, "ss", 2.4)
    assert (kept(session, first), kept(session, second)) == ("one two three", "")


def test_who_is_not_to_interrupt_hears_all_of_it() -> None:
    session = a_session(replace(LISTENING, turn_detection=TurnDetection(interrupts_response=False)))
    item_id = answer_aloud(session, TEXT, SECONDS, heard_by=SECONDS)
    assert cuts(listen(session, "ss", 0.0)) == []
    assert kept(session, item_id) == TEXT


def test_what_was_cut_is_cut_once() -> None:
    session = a_session(LISTENING)
    answer_aloud(session, TEXT, SECONDS, heard_by=SECONDS)
    assert len(cuts(listen(session, "ss" + "." * 20, 1.0))) == 1
    assert cuts(listen(session, "ss", 2.0)) == []


def test_a_client_that_knows_of_less_cuts_further() -> None:
    session = a_session(LISTENING)
    item_id = answer_aloud(session, TEXT, SECONDS, heard_by=SECONDS)
    listen(session, "ss", 2.4)
    (told,) = cuts(session.truncate_item(item_id, 0, 750))
    assert (told.audio_end_ms, kept(session, item_id)) == (750, "one")
    with pytest.raises(InvalidInput):
        session.truncate_item(item_id, 0, 751)


def test_a_client_that_counts_more_is_told_what_is_kept_and_refused_beyond_what_was_sent() -> None:
    session = a_session(LISTENING)
    item_id = answer_aloud(session, TEXT, SECONDS, heard_by=SECONDS)
    listen(session, "ss", 2.4)
    (told,) = cuts(session.truncate_item(item_id, 0, 3900))
    assert (told.audio_end_ms, kept(session, item_id)) == (2400, "one two three")
    with pytest.raises(InvalidInput) as refused:
        session.truncate_item(item_id, 0, 4001)
    assert (refused.value.param, "4000 ms" in refused.value.message) == ("audio_end_ms", True)


async def test_the_next_prompt_holds_only_the_words_that_were_heard(
    base_url: str, fakes: Fakes, write: Any, prompts: PromptBuilder, spoken_question: Any
) -> None:
    words = "the cat is black and the dog is red and the bird is blue and the fish is green"
    fakes.thinker.token_ids = write(words)
    fakes.talker.frames_after_text = 100
    async with live(base_url) as client:
        await client.say("what is it")
        answered = await client.respond()
        spoken_ms = len(heard(client.events, answered["id"])) / 48
        await asyncio.sleep(1.0)
        await client.speak(*spoken_question)
        cut = await client.until("conversation.item.truncated")
        assert cut["item_id"] == answered["output"][0]["id"]
        assert 1000 <= cut["audio_end_ms"] < spoken_ms - 1000
        found = await client.ask("conversation.item.retrieve", "conversation.item.retrieved", item_id=cut["item_id"])
        kept = found["item"]["content"][0]["transcript"]
        await client.until("response.done")
    starts = [r.start for r in fakes.thinker.behaviour.received if r.HasField("start") and not r.start.prefill_only]
    told = b"".join(prompts.token_bytes[token_id] for token_id in starts[-1].prompt.token_ids).decode()
    assert 0 < len(kept) < len(words)
    assert kept in told
    assert words[: len(kept) + 4] not in told
