"""The Thinker in steps of fixed shape, and in steps that begin before the last is read: every answer is the same."""

import asyncio
from unittest.mock import patch

import pytest

from antiphon.engine.decode_steps import DecodeStep
from antiphon.engine.sampler import SamplingParameters
from services.thinker.engine import ThinkerEngine
from tests.thinker.questions import Gathered, ask, running

WAYS = {
    "fixed": {"fixed_steps": True},
    "overlapping": {"overlapping_steps": True},
    "both": {"fixed_steps": True, "overlapping_steps": True},
}
STORE = {"rows_per_step": 24, "running_requests": 6, "context_rows": 1024}
SEEDED = SamplingParameters(temperature=1.0, top_k=20, top_p=0.9, repetition_penalty=1.1, frequency_penalty=0.2, seed=4)
SAMPLED_WAYS = [SEEDED, SamplingParameters(temperature=0.8, seed=5)]


@pytest.fixture(params=WAYS)
def way(request) -> dict[str, bool]:
    return WAYS[request.param]


async def asked(engine: ThinkerEngine, turns) -> list[Gathered]:
    """The greedy ones at once; those that are sampled one after the other, because in company the logits of two ids
    may change places by a rounding."""
    greedy = (ask(engine, turn, after_seconds=0.004 * place) for place, turn in enumerate([*turns.values()] * 2))
    together = await asyncio.gather(*greedy)
    return [*together, *[await ask(engine, turns["text"], sampling=sampling) for sampling in SAMPLED_WAYS]]


async def test_answers_and_hidden_rows_are_the_same(tiny_checkpoint, tiny_turns, way):
    async with running(tiny_checkpoint, **STORE) as engine:
        expected = await asked(engine, tiny_turns)
    with patch.object(DecodeStep, "run", autospec=True, side_effect=DecodeStep.run) as fixed:
        async with running(tiny_checkpoint, **STORE, **way) as engine:
            found = await asked(engine, tiny_turns)
            assert engine.decoder.load().pages_used == 0
    assert bool(fixed.call_count) == way.get("fixed_steps", False)
    for turn, each in zip(tiny_turns.values(), found, strict=False):
        assert each.ids == turn.turn.text_ids
    assert [each.ids for each in found] == [each.ids for each in expected]
    assert [each.lasts for each in found] == [each.lasts for each in expected]
    assert [each.finish_reason for each in found] == [each.finish_reason for each in expected]
    for each, same in zip(found, expected, strict=True):
        assert len(each.hidden) == 0 or each.hidden_rows.allclose(same.hidden_rows, atol=1e-5, rtol=1e-5)


async def test_answers_that_lost_their_pages_are_the_same(tiny_checkpoint, tiny_turns, preempted, way):
    store = {**STORE, "cache_rows": 200, "page_rows": 8, "rows_per_step": 32}
    async with running(tiny_checkpoint, **store, **way) as engine:
        found = await asyncio.gather(*(ask(engine, turn) for turn in [*tiny_turns.values()] * 3))
    assert preempted
    assert [each.ids for each in found] == [turn.turn.text_ids for turn in tiny_turns.values()] * 3


async def test_an_answer_longer_than_every_step_goes_on_in_free_shapes(tiny_checkpoint, tiny_turns):
    """More requests than the widest step has room for never share one."""
    turn = tiny_turns["text"]
    async with running(tiny_checkpoint, **{**STORE, "running_requests": 3}, **WAYS["both"]) as engine:
        found = await asyncio.gather(*(ask(engine, turn, max_new_tokens=9) for _ in range(7)))
    assert [each.ids for each in found] == [turn.turn.text_ids[:9]] * 7
