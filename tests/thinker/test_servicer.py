"""The Thinker over real gRPC: the reference's ids, and nothing left behind."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
import torch

from antiphon.errors import DeadlineExceeded, InvalidInput
from antiphon.v1.generation_pb2 import FINISH_REASON_LENGTH, FINISH_REASON_STOP, LogitBias, Sampling
from antiphon.v1.thinker_service_pb2 import GenerateInputEnd, GenerateRequest
from antiphon.wire import tensors
from services.thinker.engine import ThinkerEngine
from tests.one_stage import becomes_idle
from tests.thinker.calls import messages_of, open_thinker, responses_to, rows_of, sent, start_of
from tests.thinker.questions import media_places


def _never_ending(engine: ThinkerEngine) -> Sampling:
    return Sampling(logit_bias=[LogitBias(token_id=end, bias=-100) for end in engine._end_ids])


async def test_mixed_calls_equal_the_reference(opened, tiny_turns):
    thinker, engine = opened
    turns = list(tiny_turns.values()) * 2
    calls = [responses_to(thinker, messages_of(start_of(turn), rows_of(engine, turn))) for turn in turns]
    for turn, responses in zip(turns, await asyncio.gather(*calls), strict=True):
        kinds = [response.WhichOneof("message") for response in responses]
        tokens = [response.token for response in responses if response.HasField("token")]
        assert [token.id for token in tokens] == turn.turn.text_ids
        assert [token.is_last for token in tokens] == [False] * (len(tokens) - 1) + [True]
        hidden = [response.hidden_rows for response in responses if response.HasField("hidden_rows")]
        assert kinds == ["hidden_rows"] * len(hidden) + ["token"] * len(tokens) + ["end"]
        if hidden:
            rows = torch.cat([tensors.unpack(part.rows, name="rows", shape=(None, 64)) for part in hidden])
            expected = turn.accepted[media_places(engine, turn)]
            torch.testing.assert_close(rows, expected, rtol=1e-5, atol=2e-5)
        end = responses[-1].end
        assert end.finish_reason in (FINISH_REASON_STOP, FINISH_REASON_LENGTH)
        assert end.timings.total_ms >= end.timings.queue_ms + end.timings.first_output_ms > 0
        assert end.timings.steps >= len(tokens)
    assert await becomes_idle(engine.decoder)


async def test_the_first_rows_are_computed_while_later_media_are_still_encoded(opened, tiny_turns):
    """The hidden rows of the first medium come back before the second has been sent."""
    thinker, engine = opened
    turn = tiny_turns["all"]
    audio, *rest = rows_of(engine, turn)
    came = asyncio.Event()

    async def requests() -> AsyncIterator[GenerateRequest]:
        yield GenerateRequest(start=start_of(turn))
        yield GenerateRequest(rows=audio)
        await came.wait()
        for each in rest:
            yield GenerateRequest(rows=each)
        yield GenerateRequest(end=GenerateInputEnd())

    async with asyncio.timeout(20), aclosing(thinker.generate(requests())) as responses:
        first = await anext(responses)
        assert first.hidden_rows.rows.shape[0] == audio.rows.shape[0]
        came.set()
        ids = [response.token.id async for response in responses if response.HasField("token")]
    assert ids == turn.turn.text_ids


async def test_a_client_that_leaves_frees_the_pages(opened, tiny_turns):
    thinker, engine = opened
    start = start_of(tiny_turns["text"], sampling=_never_ending(engine), max_new_tokens=5000)
    async with aclosing(thinker.generate(sent(messages_of(start, [])))) as responses:
        for _ in range(3):
            await anext(responses)
    assert await becomes_idle(engine.decoder)


async def test_a_client_that_leaves_before_its_media_came_frees_its_place(opened, tiny_turns):
    thinker, engine = opened
    begun = [GenerateRequest(start=start_of(tiny_turns["all"]))]
    task = asyncio.create_task(anext(thinker.generate(sent(begun, then_wait=True))))
    await asyncio.sleep(0.2)
    assert not await _is_idle_now(engine)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await becomes_idle(engine.decoder)


async def _is_idle_now(engine: ThinkerEngine) -> bool:
    load = engine.decoder.load()
    return (load.running, load.waiting) == (0, 0)


async def test_a_deadline_ends_the_call_and_frees_the_pages(opened, tiny_turns):
    thinker, engine = opened
    begun = [GenerateRequest(start=start_of(tiny_turns["all"]))]
    with pytest.raises(DeadlineExceeded):
        async with aclosing(thinker.generate(sent(begun, then_wait=True), timeout_seconds=0.3)) as responses:
            await anext(responses)
    assert await becomes_idle(engine.decoder)


async def test_a_checkpoint_without_a_talker_thinks_but_gives_no_hidden_rows(tiny_checkpoint, tmp_path, tiny_turns):
    silent = tmp_path / "silent"
    shutil.copytree(tiny_checkpoint, silent)
    config = json.loads((silent / "config.json").read_text())
    (silent / "config.json").write_text(json.dumps({**config, "enable_audio_output": False}))
    turn = tiny_turns["text"]
    async with open_thinker(silent, tmp_path) as (thinker, _engine):
        with pytest.raises(InvalidInput, match="has no Talker to read them"):
            await responses_to(thinker, messages_of(start_of(turn), []))
        responses = await responses_to(thinker, messages_of(start_of(turn, return_multimodal_hidden_rows=False), []))
        assert [r.token.id for r in responses if r.HasField("token")] == turn.turn.text_ids
