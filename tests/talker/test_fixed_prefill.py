"""The Talker's prompts in steps of fixed shape, as their rows come: every speech is that of transformers."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from antiphon.engine.prefill_steps import PrefillStep
from antiphon.model.attention import PackedBatch
from services.talker.engine import TalkerEngine
from tests.talker.scripts import Gathered, Lines, gather, give_text, running, say, script

FIXED: dict[str, Any] = {"fixed_steps": True, "rows_per_step": 128, "running_requests": 6, "context_rows": 1024}
ROWS_A_PIECE = 5


@contextmanager
def watched() -> Iterator[list[list[tuple[int, int]]]]:
    """(first row, new rows) of each request, a step. In free shapes nothing is computed."""
    steps: list[list[tuple[int, int]]] = []
    put = PrefillStep.put

    def note(step: Any, requests: Any, numbers: Any) -> None:
        steps.append([(each.first_row, each.row_count) for each in requests])
        put(step, requests, numbers)

    with patch.object(PrefillStep, "put", note), patch.object(PackedBatch, "build") as free:
        yield steps
    assert free.call_count == 0


async def say_as_rows_come(engine: TalkerEngine, lines: Lines) -> Gathered:
    async with aclosing(engine.speak(script(lines))) as speech:
        for first in range(0, len(lines.hidden_rows), ROWS_A_PIECE):
            speech.add_hidden_rows(first, lines.hidden_rows[first : first + ROWS_A_PIECE])
            await asyncio.sleep(0.01)
        give_text(lines, speech)
        return await gather(speech)


@pytest.mark.parametrize("overlapping_steps", [False, True])
async def test_prompts_that_grow_share_steps_with_speeches(tiny_checkpoint, tiny_lines, overlapping_steps):
    with watched() as steps:
        async with running(tiny_checkpoint, **FIXED, overlapping_steps=overlapping_steps) as engine:
            found = await asyncio.gather(
                *(say_as_rows_come(engine, each) for each in tiny_lines.values()),
                *(say(engine, each, after_seconds=0.02 * place) for place, each in enumerate(tiny_lines.values())),
            )
    assert [each.codes for each in found] == [each.codes for each in [*tiny_lines.values()] * 2]
    prompt_rows = {len(each.prompt.token_ids) + 9 for each in tiny_lines.values()}
    ends = {first + count for step in steps for first, count in step if count > 1}
    assert ends - prompt_rows, "some of a prompt is computed before the rest has come"
    assert any({count for _, count in step} > {1} for step in steps), "rows of frames and of prompts share a step"


async def test_speeches_lose_their_pages_and_find_those_of_others(tiny_checkpoint, tiny_lines, preempted):
    lines = [*tiny_lines.values()] * 3
    store = {**FIXED, "cache_rows": 184, "page_rows": 8, "rows_per_step": 32}
    with watched() as steps:
        async with running(tiny_checkpoint, **store) as engine:
            found = await asyncio.gather(*(say(engine, each, cache_salt=b"one") for each in lines))
            reused = engine.decoder.load().rows_reused
    assert preempted
    assert reused > 0
    assert steps
    assert [each.codes for each in found] == [each.codes for each in lines]
