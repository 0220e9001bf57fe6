"""The Thinker's prompts in steps of fixed shape: answers are those of transformers, and no step goes another way."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from antiphon.engine.prefill_steps import PrefillStep
from antiphon.engine.sampler import SamplingParameters
from antiphon.errors import InternalError
from antiphon.wire.generation import PromptNumbers
from services.thinker.engine import Question, ThinkerEngine
from services.thinker.prefill import FreePrefill
from tests.thinker.questions import Gathered, ask, gather, media_rows, question, running

FIXED: dict[str, Any] = {"fixed_steps": True, "rows_per_step": 128, "running_requests": 6, "context_rows": 1024}
# One row, about the least step, and more than a step holds.
LENGTHS = [1, 63, 64, 65, 127, 300]
TOKENS = 6
START_SECONDS = 60.0


@dataclass
class Steps:
    """New rows of each request, a step; and how many steps were computed in free shapes."""

    fixed: list[list[int]] = field(default_factory=list)
    free: int = 0
    # No fixed step goes on before; whether one waits for that.
    may_go_on: threading.Event = field(default_factory=threading.Event)
    is_held: threading.Event = field(default_factory=threading.Event)

    def hold(self) -> None:
        if not self.may_go_on.is_set():
            self.is_held.set()
        assert self.may_go_on.wait(START_SECONDS)


@contextmanager
def watched() -> Iterator[Steps]:
    steps = Steps()
    steps.may_go_on.set()
    put, compute = PrefillStep.put, FreePrefill.compute

    def note_fixed(step: Any, requests: Any, numbers: Any) -> None:
        steps.hold()
        steps.fixed.append([each.row_count for each in requests])
        put(step, requests, numbers)

    def note_free(prefill: Any, *given: Any) -> Any:
        steps.free += 1
        return compute(prefill, *given)

    with patch.object(PrefillStep, "put", note_fixed), patch.object(FreePrefill, "compute", note_free):
        yield steps


def drawn_ids(length: int) -> torch.Tensor:
    return torch.randint(10, 200, (length,), generator=torch.Generator().manual_seed(length))


async def let_go_on_with(engine: ThinkerEngine, count: int, steps: Steps) -> None:
    while (load := engine.decoder.load()).running + load.waiting < count:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    steps.may_go_on.set()


async def write(engine: ThinkerEngine, token_ids: torch.Tensor, after_seconds: float = 0.0) -> Gathered:
    await asyncio.sleep(after_seconds)
    length = len(token_ids)
    positions = np.broadcast_to(np.arange(length, dtype=np.float32), (3, length))
    prompt = PromptNumbers(token_ids.numpy(), positions, float(length))
    async with aclosing(engine.answer(Question(prompt, SamplingParameters(), TOKENS))) as answer:
        return await gather(answer)


@pytest.fixture(scope="module")
def written(tiny_reference) -> list[list[int]]:
    """What transformers writes after prompts of these lengths."""
    answers = []
    for length in LENGTHS:
        ids = drawn_ids(length).unsqueeze(0)
        with torch.no_grad():
            found = tiny_reference.model.thinker.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=TOKENS,
                do_sample=False,
                eos_token_id=[tiny_reference.model.config.im_end_token_id],
            )
        answers.append(found[0, length:].tolist())
    return answers


async def test_prompts_of_any_length_are_answered_as_by_transformers(tiny_checkpoint, written):
    with watched() as steps:
        async with running(tiny_checkpoint, **FIXED) as engine:
            found = [await write(engine, drawn_ids(length)) for length in LENGTHS]
    assert [each.ids for each in found] == written
    assert steps.free == 0


@pytest.mark.parametrize("overlapping_steps", [False, True])
async def test_prompts_and_answers_share_steps(tiny_checkpoint, tiny_turns, written, overlapping_steps):
    """Pictures, films and sounds among them."""
    turns = list(tiny_turns.values())
    with watched() as steps:
        async with running(tiny_checkpoint, **FIXED, overlapping_steps=overlapping_steps) as engine:
            found = await asyncio.gather(
                *(write(engine, drawn_ids(length), 0.003 * place) for place, length in enumerate(LENGTHS)),
                *(ask(engine, turn, after_seconds=0.005 * place) for place, turn in enumerate(turns)),
            )
    assert [each.ids for each in found] == [*written, *(turn.turn.text_ids for turn in turns)]
    assert any(1 in counts and max(counts) > 1 for counts in steps.fixed)
    assert any(len(counts) > 2 for counts in steps.fixed)
    assert steps.free == 0


async def test_prompts_lose_their_pages_and_find_those_of_others(tiny_checkpoint, tiny_turns, preempted):
    turns = [*tiny_turns.values()] * 3
    store = {**FIXED, "cache_rows": 200, "page_rows": 8, "rows_per_step": 32}
    with watched() as steps:
        async with running(tiny_checkpoint, **store) as engine:
            found = await asyncio.gather(*(ask(engine, turn, cache_salt=b"one") for turn in turns))
            reused = engine.decoder.load().rows_reused
    assert preempted
    assert reused > 0
    assert [each.ids for each in found] == [turn.turn.text_ids for turn in turns]
    assert steps.free == 0


async def test_a_step_wider_than_any_is_computed_in_free_shapes(tiny_checkpoint):
    """More prompts at once than the only step has room for: all others come while the first is computed."""
    store = {**FIXED, "rows_per_step": 16, "context_rows": 80}
    prompts = [drawn_ids(length)[:2] for length in LENGTHS[1:] * 2]
    with watched() as steps:
        async with running(tiny_checkpoint, **store) as engine:
            steps.may_go_on.clear()
            first = asyncio.create_task(write(engine, prompts[0]))
            assert await asyncio.to_thread(steps.is_held.wait, START_SECONDS)
            others = (write(engine, prompt) for prompt in prompts[1:])
            found = await asyncio.gather(first, *others, let_go_on_with(engine, len(prompts), steps))
            alone = [await write(engine, prompt) for prompt in prompts]
    assert steps.free > 0
    assert steps.fixed
    assert [each.ids for each in found[:-1]] == [each.ids for each in alone]


async def test_a_step_that_fails_leaves_nothing_of_its_pictures(tiny_checkpoint, tiny_turns, monkeypatch):
    compute = PrefillStep.compute
    failures = [RuntimeError("planned")]

    def fail_once(step: PrefillStep[Any]) -> Any:
        if failures:
            raise failures.pop()
        return compute(step)

    turn = tiny_turns["picture"]
    async with running(tiny_checkpoint, **FIXED) as engine:
        async with aclosing(engine.answer(question(turn))) as answer:
            monkeypatch.setattr(PrefillStep, "compute", fail_once)
            for piece in media_rows(engine, turn):
                answer.add_rows(piece.modality, 0, piece.rows, piece.deepstack)
            with pytest.raises(InternalError, match="planned"):
                await gather(answer)
        again, text = await ask(engine, turn), await ask(engine, tiny_turns["text"])
    assert not failures
    assert again.ids == turn.turn.text_ids
    assert text.ids == tiny_turns["text"].turn.text_ids
