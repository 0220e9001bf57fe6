"""Prompts that begin alike: computed once, answered as if alone, told apart by tenant and by what they hold."""

import asyncio
import random
import threading
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from antiphon.engine.sampler import SamplingParameters
from antiphon.telemetry.metrics import process_metrics
from antiphon.v1.thinker_service_pb2 import GenerateEnd
from antiphon.wire.generation import PromptNumbers
from services.thinker import servicer
from services.thinker.config import ThinkerSettings
from services.thinker.engine import Question, ThinkerEngine
from services.thinker.page_keys import ThinkerPageKeys
from tests.model.recorded_prefill import RecordedTurn
from tests.thinker.calls import messages_of, responses_to, rows_of, start_of
from tests.thinker.questions import MODALITIES, Gathered, gather, give_all, media_places, media_rows, question, running

SALT = b"tenant one"
SMALL = {"page_rows": 4, "rows_per_step": 24, "running_requests": 8}


@dataclass
class Told:
    found: Gathered
    cached_tokens: int


async def told(engine: ThinkerEngine, turn: RecordedTurn, salt: bytes = SALT, **options: object) -> Told:
    async with aclosing(engine.answer(question(turn, cache_salt=salt, **options))) as answer:
        give_all(engine, turn, answer)
        found = await gather(answer)
        return Told(found, answer.cached_prompt_tokens)


def most_pages(turn: RecordedTurn, page_rows: int = SMALL["page_rows"]) -> int:
    """Rows of whole pages before the last row of the prompt."""
    return (len(turn.token_ids) - 1) // page_rows * page_rows


def assert_found(again: Told, turn: RecordedTurn) -> None:
    """All its pages; of each that waited for media it may have computed the beginning itself."""
    most_begun = (len(MODALITIES) + 1) * (SMALL["page_rows"] - 1)
    assert max(4, most_pages(turn) - most_begun) <= again.cached_tokens <= most_pages(turn)


@pytest.mark.parametrize("name", ["text", "sound", "picture", "all"])
async def test_a_prompt_asked_again_is_answered_the_same_from_its_pages(tiny_checkpoint, tiny_turns, name):
    """The hidden rows of those pages are the ones that were given first, bit by bit."""
    turn = tiny_turns[name]
    async with running(tiny_checkpoint, **SMALL) as engine:
        first, again = await told(engine, turn), await told(engine, turn)
    assert first.found.ids == again.found.ids == turn.turn.text_ids
    assert first.cached_tokens == 0
    assert_found(again, turn)
    assert name != "text" or again.cached_tokens == most_pages(turn)
    places = media_places(engine, turn)
    if len(places):
        kept = places < most_pages(turn)
        assert torch.equal(again.found.hidden_rows[kept], first.found.hidden_rows[kept])
        torch.testing.assert_close(again.found.hidden_rows, first.found.hidden_rows, rtol=1e-5, atol=2e-5)


async def test_pages_read_without_speech_serve_a_spoken_answer(tiny_checkpoint, tiny_turns):
    turn = tiny_turns["all"]
    async with running(tiny_checkpoint, **SMALL) as engine:
        await told(engine, turn, sends_hidden_rows=False)
        spoken = await told(engine, turn)
    assert_found(spoken, turn)
    expected = turn.accepted[media_places(engine, turn)]
    torch.testing.assert_close(spoken.found.hidden_rows, expected, rtol=1e-5, atol=2e-5)


async def test_media_that_come_row_by_row_find_their_pages(tiny_checkpoint, tiny_turns):
    turn = tiny_turns["all"]
    async with running(tiny_checkpoint, **SMALL) as engine:
        first = await told(engine, turn)
        async with aclosing(engine.answer(question(turn, cache_salt=SALT))) as answer:
            gathering = asyncio.create_task(gather(answer))
            for piece in media_rows(engine, turn):
                for row in range(len(piece.rows)):
                    part = slice(row, row + 1)
                    answer.add_rows(piece.modality, row, piece.rows[part], [layer[part] for layer in piece.deepstack])
                    await asyncio.sleep(0.001)
            found = await gathering
            assert 0 < answer.cached_prompt_tokens <= most_pages(turn)
    assert found.ids == turn.turn.text_ids
    torch.testing.assert_close(found.hidden_rows, first.found.hidden_rows, rtol=1e-5, atol=2e-5)


async def test_nobody_finds_the_pages_of_another_tenant_or_of_one_without_a_salt(tiny_checkpoint, tiny_turns):
    turn = tiny_turns["all"]
    async with running(tiny_checkpoint, **SMALL) as engine:
        for salt in (b"one", b"two", b"", b""):
            assert (await told(engine, turn, salt)).cached_tokens == 0
        assert_found(await told(engine, turn, b"two"), turn)


async def test_without_sharing_nothing_is_kept(tiny_checkpoint, tiny_turns):
    async with running(tiny_checkpoint, shares_pages=False, **SMALL) as engine:
        for _ in range(2):
            assert (await told(engine, tiny_turns["all"])).cached_tokens == 0
        assert engine.decoder.load().pages_kept == 0


async def test_the_same_ids_with_another_picture_are_another_prompt(tiny_checkpoint, tiny_turns):
    turn = tiny_turns["picture"]
    async with running(tiny_checkpoint, **SMALL) as engine:
        await told(engine, turn)
        other = await _brighter(engine, turn, SALT)
    assert other.cached_tokens <= int(media_places(engine, turn)[0])
    async with running(tiny_checkpoint, **SMALL) as engine:
        assert other.found.ids == (await _brighter(engine, turn, b"")).found.ids


async def test_the_next_turn_finds_the_question_and_the_answer(tiny_checkpoint, tiny_turns):
    turn = tiny_turns["sound"]
    async with running(tiny_checkpoint, **SMALL) as engine:
        first = await told(engine, turn, sampling=_never(engine), max_new_tokens=21)
        following = _next_turn(turn, first.found.ids)
        shared = await _ask(engine, turn, following)
        known = len(turn.token_ids) + len(first.found.ids) - 1  # the last token was never read
        assert known // 4 * 4 - 4 <= shared.cached_tokens <= known // 4 * 4
    async with running(tiny_checkpoint, shares_pages=False, **SMALL) as engine:
        alone = await _ask(engine, turn, following)
    assert shared.found.ids == alone.found.ids
    torch.testing.assert_close(shared.found.hidden_rows, alone.found.hidden_rows, rtol=1e-5, atol=2e-5)


async def test_a_crowd_of_conversations_is_answered_as_without_sharing(tiny_checkpoint, tiny_turns, preempted):
    """Many tenants, a store far too small, some leave at random moments: ids are the reference's, nothing is left."""
    dice = random.Random(11)  # noqa: S311 (moments, not secrets)
    turns = list(tiny_turns.values())
    store = {"cache_rows": 176, "page_rows": 8, "rows_per_step": 32, "running_requests": 8}
    async with running(tiny_checkpoint, **store) as engine:

        async def leave(turn: RecordedTurn) -> None:
            options = {"sampling": _never(engine), "max_new_tokens": 60, "cache_salt": SALT}
            async with aclosing(engine.answer(question(turn, **options))) as answer:
                if dice.random() < 0.7:
                    give_all(engine, turn, answer)
                await asyncio.wait([asyncio.ensure_future(gather(answer))], timeout=dice.random() * 0.2)

        async def stay(turn: RecordedTurn) -> None:
            await asyncio.sleep(dice.random() * 0.2)
            salt = dice.choice([SALT, SALT, b"tenant two", b""])
            assert (await told(engine, turn, salt)).found.ids == turn.turn.text_ids

        await asyncio.gather(*(leave(dice.choice(turns)) for _ in range(10)), *(stay(turn) for turn in turns * 6))
        load = engine.decoder.load()
    assert preempted
    assert load.rows_reused > 0
    assert (load.running, load.waiting, load.pages_used) == (0, 0, 0)


async def test_the_first_token_tells_how_much_of_the_prompt_was_cached(opened, tiny_turns):
    thinker, engine = opened
    turn = tiny_turns["all"]
    messages = messages_of(start_of(turn, cache_salt=SALT), rows_of(engine, turn))
    assert not any(response.cached_prompt_tokens for response in await responses_to(thinker, messages))
    again = await responses_to(thinker, messages)
    first, *others = [response for response in again if response.HasField("token")]
    # Some of its pages it may have begun itself before their media came.
    assert 0 < first.cached_prompt_tokens <= most_pages(turn, 16)
    assert not any(response.cached_prompt_tokens for response in others)
    assert again[-1].end != GenerateEnd()
    scraped = process_metrics().registry.get_sample_value
    assert scraped("antiphon_rows_reused_total", {"stage": "thinker"}) == first.cached_prompt_tokens
    assert scraped("antiphon_pages", {"stage": "thinker", "state": "kept"}) == engine.decoder.load().pages_kept > 0


async def test_media_rows_are_read_for_their_keys_beside_the_event_loop(opened, tiny_turns, monkeypatch):
    """Megabytes are checked and hashed while other calls go on."""
    thinker, engine = opened
    threads, read = [], ThinkerPageKeys.read_prompt

    def watched(keys: ThinkerPageKeys) -> None:
        threads.append(threading.current_thread())
        read(keys)

    monkeypatch.setattr(ThinkerPageKeys, "read_prompt", watched)
    monkeypatch.setattr(servicer, "_SMALL_BYTES", 0)
    parts = rows_of(engine, tiny_turns["all"])
    await responses_to(thinker, messages_of(start_of(tiny_turns["all"], cache_salt=b"beside"), parts))
    assert len(threads) == 1 + len(parts), "once with the prompt, and with every message of rows"
    assert threading.current_thread() not in threads[1:]


def test_a_change_anywhere_changes_the_keys_from_its_page_on(tiny_checkpoint, tiny_turns):
    engine, turn, size = _unstarted(tiny_checkpoint), tiny_turns["all"], 4
    same = _keys(engine, turn)
    assert _keys(engine, turn) == same
    assert len(set(same)) == len(same) == len(turn.token_ids) // size
    visual = engine._request(question(turn)).media.visual_prompt_rows
    for change, rows in {
        "token_ids": range(len(turn.token_ids)),
        "positions": range(len(turn.token_ids)),
        "rows": media_places(engine, turn).tolist(),
        "deepstack": visual.tolist(),
    }.items():
        for row in list(rows)[:: max(1, len(rows) // 7)]:
            page, changed = row // size, _keys(engine, turn, change, row)
            assert changed[:page] == same[:page], (change, row)
            assert not set(changed[page:]) & set(same), (change, row)


def _keys(engine: ThinkerEngine, turn: RecordedTurn, change: str = "", row: int = 0) -> list[bytes | None]:
    """Of the prompt's pages, after one number of one row was changed."""
    request = engine._request(question(turn))
    for piece in media_rows(engine, turn):
        request.media.add(piece.modality, 0, piece.rows, piece.deepstack)
    media = request.media
    match change:
        case "token_ids":
            request.token_ids = np.where(np.arange(len(request.token_ids)) == row, 5, request.token_ids)
        case "positions":
            request.positions = request.positions.copy()
            request.positions[2, row] += 0.25
        case "rows":
            media.rows[np.searchsorted(media.prompt_rows, row), -1] += 1e-6
        case "deepstack":
            media.deepstack[-1, np.searchsorted(media.visual_prompt_rows, row), 0] *= -1
    keys = ThinkerPageKeys(request, SALT, 4)
    keys.read_prompt()
    return [keys.key(page) for page in range(len(request.token_ids) // 4)]


def _unstarted(checkpoint) -> ThinkerEngine:
    return ThinkerEngine(ThinkerSettings(checkpoint=checkpoint))


async def _brighter(engine: ThinkerEngine, turn: RecordedTurn, salt: bytes) -> Told:
    async with aclosing(engine.answer(question(turn, cache_salt=salt))) as answer:
        for piece in media_rows(engine, turn):
            answer.add_rows(piece.modality, 0, piece.rows + 0.5, piece.deepstack)
        return Told(await gather(answer), answer.cached_prompt_tokens)


def _never(engine: ThinkerEngine) -> SamplingParameters:
    """Writes on to its limit."""
    return SamplingParameters(logit_bias=tuple((end, -100.0) for end in engine._end_ids))


def _next_turn(turn: RecordedTurn, answer: list[int]) -> Question:
    """The question, its answer and six tokens more."""
    more = [*answer, 5, 6, 7, 8, 9, 10]
    first = question(turn)
    steps = np.arange(len(more), dtype=np.float32) + first.prompt.next_position
    prompt = PromptNumbers(
        np.concatenate([first.prompt.token_ids, more]),
        np.concatenate([first.prompt.positions, np.tile(steps, (3, 1))], 1),
        float(steps[-1]) + 1,
    )
    return Question(prompt, SamplingParameters(), 8, sends_hidden_rows=True, cache_salt=SALT)


async def _ask(engine: ThinkerEngine, turn: RecordedTurn, asked: Question) -> Told:
    async with aclosing(engine.answer(asked)) as answer:
        give_all(engine, turn, answer)
        return Told(await gather(answer), answer.cached_prompt_tokens)
