"""A Thinker that is given the beginning of an answer writes the rest, the same from every place, greedy or drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from antiphon.engine.sampler import SamplingParameters
from antiphon.errors import InvalidInput
from antiphon.v1.generation_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_STOP
from antiphon.v1.thinker_service_pb2 import GenerateResponse
from antiphon.wire import arrays
from antiphon.wire.stages import Thinker
from services.thinker.engine import ThinkerEngine
from tests.model.recorded_prefill import RecordedTurn, record
from tests.reference.transformers_reference import TransformersReference
from tests.thinker.calls import messages_of, open_thinker, responses_to, rows_of, start_of
from tests.thinker.questions import CONVERSATIONS, ask, running

SAMPLINGS = {
    "greedy": SamplingParameters(),
    "drawn": SamplingParameters(temperature=1.3, top_k=40, top_p=0.95, seed=5),
    "penalised": SamplingParameters(
        temperature=1.0, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.4, seed=6
    ),
}


@pytest.fixture(scope="module")
def turn(tiny_reference: TransformersReference) -> RecordedTurn:
    return record(tiny_reference, CONVERSATIONS["all"], max_frames=2)


@pytest.mark.parametrize("settings", [{}, {"rows_per_step": 16, "running_requests": 8}], ids=["whole", "in chunks"])
@pytest.mark.parametrize("kind", SAMPLINGS)
async def test_from_any_token_on_the_rest_is_what_it_would_have_been(
    kind: str, settings: dict[str, int], tiny_checkpoint: Path, turn: RecordedTurn
) -> None:
    async with running(tiny_checkpoint, **settings) as engine:
        never = tuple((end, -100.0) for end in engine._end_ids)
        sampling = replace(SAMPLINGS[kind], logit_bias=never)
        whole = await ask(engine, turn, sampling=sampling, max_new_tokens=12)
        assert len(whole.ids) == 12
        for place in range(1, 12):
            rest = await ask(
                engine,
                turn,
                sampling=sampling,
                max_new_tokens=12,
                generated_ids=whole.ids[:place],
                sends_hidden_rows=False,
            )
            assert rest.ids == whole.ids[place:]
            assert rest.lasts == whole.lasts[place:]
            assert not rest.hidden
            assert rest.finish_reason == "length"


async def test_hidden_rows_come_again_only_when_they_are_asked_for(tiny_checkpoint: Path, turn: RecordedTurn) -> None:
    async with running(tiny_checkpoint) as engine:
        whole = await ask(engine, turn)
        again = await ask(engine, turn, generated_ids=whole.ids[:3])
    assert again.ids == whole.ids[3:]
    # But for rounding: which rows share a step depends on when the media come.
    torch.testing.assert_close(again.hidden_rows, whole.hidden_rows, rtol=1e-5, atol=2e-5)


async def test_an_answer_that_has_ended_is_told_its_end(
    tiny_checkpoint: Path, turn: RecordedTurn, tmp_path: Path
) -> None:
    async with open_thinker(tiny_checkpoint, tmp_path) as (thinker, engine):
        (end_id, *_) = engine._end_ids
        stopped = await resumed(thinker, engine, turn, generated_ids=[5, 6, end_id])
        cut = await resumed(thinker, engine, turn, generated_ids=[5, 6, 7], max_new_tokens=3)
    assert [answer.end.finish_reason for answer in stopped] == [FINISH_REASON_STOP]
    assert [answer.end.finish_reason for answer in cut] == [FINISH_REASON_LENGTH]


async def test_what_could_not_have_been_written_is_refused(
    tiny_checkpoint: Path, turn: RecordedTurn, tmp_path: Path
) -> None:
    async with open_thinker(tiny_checkpoint, tmp_path) as (thinker, engine):
        (end_id, *_) = engine._end_ids
        for ids, expected in (
            ([end_id, 5], "expected nothing after the id that ends"),
            ([5] * 25, "expected at most 24, the limit of the answer; came 25"),
            ([-1], "expected ids from 0 to"),
        ):
            with pytest.raises(InvalidInput, match=expected):
                await resumed(thinker, engine, turn, generated_ids=ids)


async def test_a_prompt_that_was_only_read_writes_nothing_and_is_found_by_the_next_request(
    tiny_checkpoint: Path, turn: RecordedTurn, tmp_path: Path
) -> None:
    async with open_thinker(tiny_checkpoint, tmp_path, page_rows=4) as (thinker, engine):
        read = await resumed(thinker, engine, turn, prefill_only=True, max_new_tokens=0, cache_salt=b"a")
        kinds = [answer.WhichOneof("message") for answer in read]
        assert kinds == ["hidden_rows"] * (len(kinds) - 1) + ["end"]
        answer = await resumed(thinker, engine, turn, cache_salt=b"a")
        token = next(each for each in answer if each.HasField("token"))
        assert token.cached_prompt_tokens > len(turn.token_ids) - 8, "but for what it computed before its media came"
        assert [each.token.id for each in answer if each.HasField("token")] == turn.turn.text_ids
        np.testing.assert_allclose(hidden_rows_of(answer), hidden_rows_of(read), atol=1e-5)


def hidden_rows_of(answer: list[GenerateResponse]) -> NDArray[np.generic]:
    parts = [each.hidden_rows.rows for each in answer if each.HasField("hidden_rows")]
    return np.concatenate([arrays.unpack(part, name="rows", shape=(None, None)) for part in parts])


async def resumed(
    thinker: Thinker, engine: ThinkerEngine, turn: RecordedTurn, **options: object
) -> list[GenerateResponse]:
    return await responses_to(thinker, messages_of(start_of(turn, **options), rows_of(engine, turn)))
