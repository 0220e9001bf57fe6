"""The Talker over real gRPC: the reference's codes, and nothing left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from antiphon.errors import DeadlineExceeded
from antiphon.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FinishReason,
    Sampling,
)
from antiphon.v1.talker_service_pb2 import SpeakRequest
from antiphon.v1.thinker_service_pb2 import TextToken
from tests.one_stage import becomes_idle
from tests.talker.calls import codes_of, messages_of, responses_to, rows_of, sent, start_of, text_of
from tests.talker.scripts import MAX_FRAMES


async def test_calls_at_once_equal_the_reference(opened, tiny_lines):
    talker, engine = opened
    every = list(tiny_lines.values()) * 4
    speeches = await asyncio.gather(*(responses_to(talker, messages_of(each)) for each in every))
    for each, responses in zip(every, speeches, strict=True):
        assert codes_of(responses) == each.codes
        end = responses[-1].end
        reason: FinishReason = FINISH_REASON_LENGTH if len(each.codes) == MAX_FRAMES else FINISH_REASON_STOP
        assert (end.finish_reason, end.frame_count) == (reason, len(each.codes))
        assert end.timings.total_ms >= end.timings.queue_ms + end.timings.first_output_ms > 0
        assert end.timings.steps >= len(each.codes)
        assert 0 < end.timings.residual_codes_ms * len(each.codes) < end.timings.total_ms
    assert await becomes_idle(engine.decoder)


async def test_a_frame_leaves_before_the_next_token_is_sent(opened, tiny_lines):
    talker, engine = opened
    each, came = tiny_lines["picture"], asyncio.Event()
    start, *rest = text_of(each)

    async def requests() -> AsyncIterator[SpeakRequest]:
        for message in (start_of(each), *rows_of(each), start):
            yield message
        await came.wait()
        for message in rest:
            yield message

    async with asyncio.timeout(20), aclosing(talker.speak(requests())) as responses:
        first = await anext(responses)
        assert codes_of([first]) == each.codes[:1]
        came.set()
        assert codes_of([first, *[response async for response in responses]]) == each.codes
    assert await becomes_idle(engine.decoder)


async def test_an_answer_of_one_token_is_silence(opened, tiny_lines):
    talker, engine = opened
    token = SpeakRequest(token=TextToken(id=1, is_last=True))
    responses = await responses_to(talker, [start_of(tiny_lines["text"]), token])
    assert [response.WhichOneof("message") for response in responses] == ["end"]
    assert (responses[0].end.finish_reason, responses[0].end.frame_count) == (FINISH_REASON_STOP, 0)
    assert await becomes_idle(engine.decoder)


async def test_without_sampling_the_checkpoint_decides_and_a_seed_repeats(opened, tiny_lines):
    talker, _ = opened
    start = start_of(tiny_lines["text"])
    start.start.ClearField("sampling")
    messages = [start, *text_of(tiny_lines["text"])]
    sampled = [codes_of(await responses_to(talker, messages)) for _ in range(2)]
    assert sampled[0] != sampled[1]
    assert tiny_lines["text"].codes not in sampled
    seeded = messages_of(tiny_lines["text"], sampling=Sampling(temperature=0.9, top_k=50, seed=3))
    assert codes_of(await responses_to(talker, seeded)) == codes_of(await responses_to(talker, seeded))


async def test_a_client_that_leaves_frees_the_pages(opened, tiny_lines):
    talker, engine = opened
    async with aclosing(talker.speak(sent(messages_of(tiny_lines["all"], max_frames=5000)))) as responses:
        for _ in range(3):
            await anext(responses)
    assert await becomes_idle(engine.decoder)


async def test_a_client_that_leaves_while_the_talker_waits_for_text_frees_the_pages(opened, tiny_lines):
    talker, engine = opened
    begun = [start_of(tiny_lines["all"]), *rows_of(tiny_lines["all"]), *text_of(tiny_lines["all"])[:2]]
    async with aclosing(talker.speak(sent(begun, then_wait=True))) as responses:
        await anext(responses)
        assert engine.decoder.load().pages_used > 0
    assert await becomes_idle(engine.decoder)


async def test_a_deadline_ends_the_call_and_frees_the_pages(opened, tiny_lines):
    talker, engine = opened
    begun = [start_of(tiny_lines["all"])]
    with pytest.raises(DeadlineExceeded):
        async with aclosing(talker.speak(sent(begun, then_wait=True), timeout_seconds=0.3)) as responses:
            await anext(responses)
    assert await becomes_idle(engine.decoder)
