"""The Thinker's engine: the cancelled leave nothing, and each answer is the reference's, whoever else is there."""

import asyncio
import json
import random
import shutil
from contextlib import aclosing

import pytest
import torch

from antiphon.engine.sampler import SamplingParameters
from antiphon.errors import AtCapacity, CheckpointError, ContextTooLong, InternalError, InvalidInput, Unavailable
from antiphon.model.config import OmniConfig
from antiphon.model.thinker import Thinker
from services.thinker.config import ThinkerSettings
from services.thinker.engine import ThinkerEngine, end_token_ids
from tests.thinker.questions import (
    ask,
    gather,
    give_all,
    media_places,
    media_rows,
    question,
    running,
)

# Never ends by itself.
ENDLESS = {"max_new_tokens": 2000}


def _never(engine: ThinkerEngine) -> SamplingParameters:
    return SamplingParameters(logit_bias=tuple((end, -100.0) for end in engine._end_ids))


def is_idle(engine: ThinkerEngine) -> bool:
    load = engine.decoder.load()
    return (load.running, load.waiting, load.pages_used) == (0, 0, 0)


async def test_cancelling_frees_the_pages_before_the_next_step(tiny_checkpoint, tiny_turns):
    async with running(tiny_checkpoint) as engine:
        async with aclosing(engine.answer(question(tiny_turns["text"], sampling=_never(engine), **ENDLESS))) as answer:
            await gather(answer, until=lambda found: len(found.ids) == 3)
            assert engine.decoder.load().pages_used > 0
            await answer.aclose()
            assert is_idle(engine)
            assert [output async for output in answer] == []
        assert (await ask(engine, tiny_turns["text"])).ids == tiny_turns["text"].turn.text_ids


async def test_cancelling_anywhere_leaves_nothing_and_disturbs_nobody(tiny_checkpoint, tiny_turns):
    """Twenty requests go at random moments, some before their media came; one stays and is unharmed."""
    moments = random.Random(7)  # noqa: S311 (moments, not secrets)
    async with running(tiny_checkpoint, rows_per_step=16, running_requests=8) as engine:

        async def leave() -> None:
            turn = tiny_turns[moments.choice(list(tiny_turns))]
            async with aclosing(engine.answer(question(turn, sampling=_never(engine), **ENDLESS))) as answer:
                if moments.random() < 0.7:
                    give_all(engine, turn, answer)
                await asyncio.wait([asyncio.ensure_future(gather(answer))], timeout=moments.random() * 0.2)

        stays = asyncio.create_task(ask(engine, tiny_turns["all"]))
        await asyncio.gather(*(leave() for _ in range(20)))
        assert (await stays).ids == tiny_turns["all"].turn.text_ids
        assert is_idle(engine)


@pytest.mark.parametrize("name", ["tiny", "nano"])
async def test_requests_that_join_and_leave_are_answered_as_alone(name, request, tiny_checkpoint, nano):
    turns = request.getfixturevalue(f"{name}_turns")
    async with running(tiny_checkpoint if name == "tiny" else nano, rows_per_step=16, running_requests=8) as engine:
        every = [(turn, 0.003 * index) for index, turn in enumerate([*turns.values()] * 4)]
        answers = await asyncio.gather(*(ask(engine, turn, after_seconds=after) for turn, after in every))
        for (turn, _), found in zip(every, answers, strict=True):
            assert found.ids == turn.turn.text_ids
            assert found.lasts == [False] * (len(found.ids) - 1) + [True]
            places = media_places(engine, turn)
            if len(places):
                torch.testing.assert_close(found.hidden_rows, turn.accepted[places], rtol=1e-5, atol=2e-5)
        assert engine.decoder.load().pages_used == 0


async def test_media_rows_may_come_one_by_one_in_any_order_of_modalities(tiny_checkpoint, tiny_turns):
    turn = tiny_turns["all"]
    order = random.Random(3)  # noqa: S311 (an order, not a secret)
    async with running(tiny_checkpoint, rows_per_step=7, running_requests=4) as engine:
        async with aclosing(engine.answer(question(turn))) as answer:
            gathering = asyncio.create_task(gather(answer))
            waiting = [[piece, 0] for piece in media_rows(engine, turn)]
            while waiting:
                chosen = order.choice(waiting)
                piece, first = chosen
                stop = min(first + order.randint(1, 3), len(piece.rows))
                part = slice(first, stop)
                answer.add_rows(piece.modality, first, piece.rows[part], [layer[part] for layer in piece.deepstack])
                chosen[1] = stop
                if stop == len(piece.rows):
                    waiting.remove(chosen)
                await asyncio.sleep(0.002)
            answer.require_all_rows()
            found = await gathering
        assert found.ids == turn.turn.text_ids
        assert len(found.hidden) > 2
        expected = turn.accepted[media_places(engine, turn)]
        torch.testing.assert_close(found.hidden_rows, expected, rtol=1e-5, atol=2e-5)


async def test_requests_that_were_computed_again_give_the_same_and_give_it_once(tiny_checkpoint, tiny_turns, preempted):
    """A store too small for all of them: the newest lose their pages in the middle of their answers."""
    turns = list(tiny_turns.values()) * 3
    store = {"cache_rows": 160, "page_rows": 8, "rows_per_step": 32, "running_requests": 8}
    async with running(tiny_checkpoint, **store) as engine:
        answers = await asyncio.gather(*(ask(engine, turn) for turn in turns))
        assert preempted
        for turn, found in zip(turns, answers, strict=True):
            assert found.ids == turn.turn.text_ids
            places = media_places(engine, turn)
            if len(places):
                torch.testing.assert_close(found.hidden_rows, turn.accepted[places], rtol=1e-5, atol=2e-5)


async def test_sampled_answers_that_were_computed_again_are_the_same(tiny_checkpoint, tiny_turns, preempted):
    """What a request has drawn and seen outlives its pages."""

    def options(seed: int) -> dict[str, object]:
        sampling = SamplingParameters(1.0, 20, 0.95, repetition_penalty=1.2, frequency_penalty=0.3, seed=seed)
        return {"sampling": sampling, "max_new_tokens": 40}

    turns = list(tiny_turns.values()) * 3
    async with running(tiny_checkpoint) as engine:
        alone = [(await ask(engine, turn, **options(seed))).ids for seed, turn in enumerate(turns)]
    async with running(tiny_checkpoint, cache_rows=160, page_rows=8, rows_per_step=32, running_requests=8) as engine:
        together = await asyncio.gather(*(ask(engine, turn, **options(seed)) for seed, turn in enumerate(turns)))
    assert preempted
    assert [found.ids for found in together] == alone


async def test_a_request_that_overflows_fails_alone(tiny_checkpoint, tiny_turns):
    """Its media rows are numbers, but what becomes of them is none."""
    broken, healthy = tiny_turns["picture"], tiny_turns["text"]
    async with running(tiny_checkpoint) as engine:
        async with aclosing(engine.answer(question(broken))) as answer:
            others = [asyncio.create_task(ask(engine, healthy)) for _ in range(4)]
            for piece in media_rows(engine, broken):
                huge = torch.full_like(piece.rows, 3e38)
                answer.add_rows(piece.modality, 0, huge, [huge for _ in piece.deepstack])
            with pytest.raises(InternalError, match="The Thinker computed what is no number"):
                await gather(answer)
            for other in others:
                assert (await other).ids == healthy.turn.text_ids
        assert (await ask(engine, broken)).ids == broken.turn.text_ids
        assert is_idle(engine)


async def test_a_slow_reader_gets_everything(tiny_checkpoint, tiny_turns):
    turn = tiny_turns["picture"]
    async with running(tiny_checkpoint, untaken_tokens=2) as engine:
        async with aclosing(engine.answer(question(turn))) as answer:
            give_all(engine, turn, answer)
            ids = []
            async for output in answer:
                await asyncio.sleep(0.005)
                ids += [output.id] if hasattr(output, "is_last") else []
        assert ids == turn.turn.text_ids


async def test_an_answer_ends_by_length_by_its_own_stop_ids_and_by_the_checkpoints(tiny_checkpoint, tiny_turns):
    turn = tiny_turns["text"]
    ids = turn.turn.text_ids
    async with running(tiny_checkpoint) as engine:
        cut = await ask(engine, turn, max_new_tokens=5)
        assert (cut.ids, cut.finish_reason) == (ids[:5], "length")
        stopped = await ask(engine, turn, stop_token_ids=[ids[3], ids[6]])
        first = min(ids.index(ids[3]), ids.index(ids[6]))
        assert (stopped.ids, stopped.finish_reason) == (ids[: first + 1], "stop")
        one = await ask(engine, turn, max_new_tokens=1)
        assert (one.ids, one.lasts) == (ids[:1], [True])


async def test_a_seed_repeats_an_answer_whoever_else_is_there(tiny_checkpoint, tiny_turns):
    sampling = SamplingParameters(temperature=0.9, top_k=20, top_p=0.9, repetition_penalty=1.1, seed=5)
    async with running(tiny_checkpoint) as engine:
        alone = await ask(engine, tiny_turns["text"], sampling=sampling)
        crowd = [ask(engine, turn, sampling=SamplingParameters(temperature=1.0)) for turn in tiny_turns.values()]
        among, *_ = await asyncio.gather(ask(engine, tiny_turns["text"], sampling=sampling), *crowd)
        assert among.ids == alone.ids


async def test_without_hidden_rows_asked_none_are_given(tiny_checkpoint, tiny_turns):
    async with running(tiny_checkpoint) as engine:
        assert (await ask(engine, tiny_turns["sound"], sends_hidden_rows=False)).hidden == []


async def test_media_beyond_the_bound_are_refused_until_others_left(tiny_checkpoint, tiny_turns):
    turn = tiny_turns["sound"]
    async with running(tiny_checkpoint, media_rows=20) as engine:
        async with aclosing(engine.answer(question(turn))):
            with pytest.raises(AtCapacity, match="holds all the media"):
                engine.answer(question(turn))
        assert (await ask(engine, turn)).ids == turn.turn.text_ids


async def test_what_does_not_fit_is_refused(tiny_checkpoint, tiny_turns):
    turn = tiny_turns["text"]
    async with running(tiny_checkpoint, context_rows=64) as engine:
        with pytest.raises(ContextTooLong, match=r"holds 64 tokens; the prompt has 14 and the answer may take 51"):
            engine.answer(question(turn, max_new_tokens=51))
        with pytest.raises(InvalidInput, match="max_new_tokens: expected 1 or more; came 0"):
            engine.answer(question(turn, max_new_tokens=0))
        assert len((await ask(engine, turn, max_new_tokens=50)).ids) <= 50


async def test_a_thinker_that_has_not_started_says_so(tiny_checkpoint, tiny_turns):
    engine = ThinkerEngine(ThinkerSettings(checkpoint=tiny_checkpoint))
    with pytest.raises(Unavailable, match="still loading"):
        engine.answer(question(tiny_turns["text"]))
    await engine.decoder.close()


async def test_a_thinker_that_cannot_compute_does_not_start(tiny_checkpoint, monkeypatch):
    engine = ThinkerEngine(ThinkerSettings(checkpoint=tiny_checkpoint))
    monkeypatch.setattr(Thinker, "logits", lambda *_: torch.empty(0).view(1))
    with pytest.raises(InternalError, match="A step of the Thinker failed"):
        await engine.start()
    assert is_idle(engine)
    await engine.decoder.close()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"eos_token_id": 7}, {7}), ({"eos_token_id": [7, 9]}, {7, 9}), ({}, "end of turn"), (None, "end of turn")],
)
def test_end_ids_come_from_the_checkpoint(tiny_checkpoint, tmp_path, settings, expected):
    config = OmniConfig.from_checkpoint(tiny_checkpoint)
    if settings is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    assert end_token_ids(tmp_path, config) == ({config.im_end_id} if expected == "end of turn" else expected)


@pytest.mark.parametrize("settings", ['{"eos_token_id": "x"}', '{"eos_token_id": [99999]}', "[]", "{"])
def test_end_ids_that_are_none_are_refused(tiny_checkpoint, tmp_path, settings):
    shutil.copy(tiny_checkpoint / "config.json", tmp_path)
    (tmp_path / "generation_config.json").write_text(settings)
    with pytest.raises(CheckpointError, match=r"generation_config\.json: expected"):
        ThinkerEngine(ThinkerSettings(checkpoint=tmp_path))
