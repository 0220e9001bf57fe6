"""The Talker in steps of fixed shape, and in steps that begin before the last is read: every speech is the same."""

import asyncio
from unittest.mock import patch

import pytest

from antiphon.engine.decode_steps import DecodeStep
from antiphon.engine.sampler import SamplingParameters
from antiphon.model.code_predictor import CodePredictor
from services.talker.engine import TalkerEngine
from services.talker.frame_steps import FrameStep
from tests.talker.scripts import MAX_FRAMES, Gathered, Lines, running, say

WAYS = {
    "fixed": {"fixed_steps": True},
    "overlapping": {"overlapping_steps": True},
    "both": {"fixed_steps": True, "overlapping_steps": True},
}
STORE = {"rows_per_step": 24, "running_requests": 6, "context_rows": 1024}
SAMPLED = SamplingParameters(temperature=0.9, top_k=50, repetition_penalty=1.05, seed=9)
# The last two draw their residual codes in other ways than by default.
SAMPLED_WAYS = [
    {"sampling": SAMPLED},
    {"sampling": SAMPLED, "residual_sampling": SamplingParameters(temperature=1.2, top_k=50, seed=2)},
    {"sampling": SAMPLED, "residual_sampling": SamplingParameters(temperature=0.7, top_p=0.9)},
]


@pytest.fixture(params=WAYS)
def way(request) -> dict[str, bool]:
    return WAYS[request.param]


async def said(engine: TalkerEngine, every: dict[str, Lines]) -> list[Gathered]:
    """The greedy ones at once; those that are sampled one after the other, because in company the logits of two codes
    may change places by a rounding."""
    greedy = (say(engine, each, after_seconds=0.004 * place) for place, each in enumerate([*every.values()] * 2))
    together = await asyncio.gather(*greedy)
    return [*together, *[await say(engine, every["text"], **how) for how in SAMPLED_WAYS]]


async def test_speeches_are_the_same(tiny_checkpoint, tiny_lines, way):
    async with running(tiny_checkpoint, **STORE) as engine:
        expected = await said(engine, tiny_lines)
    steps = [patch.object(kind, "run", autospec=True, side_effect=kind.run) for kind in (DecodeStep, FrameStep)]
    with steps[0] as decoded, steps[1] as framed:
        async with running(tiny_checkpoint, **STORE, **way) as engine:
            found = await said(engine, tiny_lines)
            assert engine.decoder.load().pages_used == 0
    for each in (decoded, framed):
        assert bool(each.call_count) == way.get("fixed_steps", False)
    assert [each.codes for each in found] == [each.codes for each in expected]
    assert [each.finish_reason for each in found] == [each.finish_reason for each in expected]
    for lines, each in zip(tiny_lines.values(), found, strict=False):
        assert each.codes == lines.codes
        assert each.finish_reason == ("length" if len(lines.codes) == MAX_FRAMES else "stop")


async def test_a_cpu_computes_no_frame_beyond_the_end_of_a_speech(tiny_checkpoint, tiny_lines):
    lines = next(each for each in tiny_lines.values() if 0 < len(each.codes) < MAX_FRAMES)
    async with running(tiny_checkpoint, **STORE) as engine:
        with patch.object(CodePredictor, "predict", autospec=True, side_effect=CodePredictor.predict) as predicted:
            found = await say(engine, lines)
    assert (found.codes, found.finish_reason) == (lines.codes, "stop")
    assert predicted.call_count == len(lines.codes)


async def test_speeches_that_lost_their_pages_are_the_same(tiny_checkpoint, tiny_lines, preempted, way):
    lines = [*tiny_lines.values()] * 2
    store = {**STORE, "cache_rows": 184, "page_rows": 8, "rows_per_step": 32}
    async with running(tiny_checkpoint, **store, **way) as engine:
        found = await asyncio.gather(*(say(engine, each) for each in lines))
    assert preempted
    assert [each.codes for each in found] == [each.codes for each in lines]
