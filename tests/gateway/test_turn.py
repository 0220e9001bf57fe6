"""One turn over the stages: who gets what, and when."""

import asyncio
from dataclasses import replace

import pytest

from antiphon.prompt.prompt import PromptBuilder
from antiphon.v1.media_pb2 import MultimodalHiddenRows
from antiphon.v1.tensor_pb2 import DATA_TYPE_BFLOAT16, Tensor
from antiphon.v1.thinker_service_pb2 import GenerateResponse
from services.gateway.config import GatewaySettings
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.request import SpeechDelta, SpeechRequest, TurnEnd
from tests.gateway.conftest import LIMITS, Fakes
from tests.gateway.turns import (
    SPEECH,
    ScriptedTalker,
    ScriptedThinker,
    Write,
    a_watch,
    answer,
    asked,
    conduct,
    kinds,
    spoken_ids,
    text_of,
)


async def test_every_stage_gets_its_messages_in_order(conductor: Conductor, fakes: Fakes) -> None:
    events = await conduct(conductor, asked(media=(b"one", b"two")))
    tokens = len(fakes.thinker.token_ids)
    frames = tokens - 1 + fakes.talker.frames_after_text
    assert kinds(fakes.encoders) == ["start", "chunk", "chunk", "end"]
    assert kinds(fakes.thinker) == ["start", "rows", "rows", "end"]
    assert kinds(fakes.talker) == ["start", "hidden_rows", *["token"] * tokens]
    assert kinds(fakes.codec) == [*["frames"] * frames, "end"]
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert (end.text_tokens, end.audio_tokens, end.finish_reason) == (tokens, frames, "stop")
    assert set(end.stage_timings) == {"encoders", "thinker", "talker", "codec"}
    assert fakes.open_calls == 0


async def test_text_alone_asks_neither_talker_nor_codec(conductor: Conductor, fakes: Fakes) -> None:
    events = await conduct(conductor, asked(speech=None))
    assert text_of(events) == "the cat is black"
    assert fakes.talker.behaviour.calls_begun == fakes.codec.behaviour.calls_begun == 0
    assert not fakes.thinker.behaviour.received[0].start.return_multimodal_hidden_rows


async def test_the_talker_is_told_prompt_voice_and_bounds(conductor: Conductor, fakes: Fakes) -> None:
    await conduct(conductor, asked(speech=replace(SPEECH, voice="chelsie")))
    start = fakes.talker.behaviour.received[0].start
    assert (start.voice, start.max_frames, start.sampling.temperature) == ("chelsie", 100, pytest.approx(0.3))
    assert not start.HasField("residual_sampling")
    assert len(start.assistant_prefix_ids) == 3
    assert start.prompt.positions.shape == [3, len(start.prompt.token_ids) + 9]


async def test_media_travel_in_chunks(conductor: Conductor, fakes: Fakes) -> None:
    medium = bytes(range(256)) * 10_000
    await conduct(conductor, asked(media=(medium,)))
    received = fakes.encoders.behaviour.received
    chunks = [request.chunk.data for request in received if request.HasField("chunk")]
    assert b"".join(chunks) == medium
    assert max(map(len, chunks)) <= 1 << 20
    assert received[0].start.items[0].byte_count == len(medium)


async def test_hidden_rows_pass_unread(conductor: Conductor, fakes: Fakes) -> None:
    """Even bytes that are no numbers arrive as they were sent."""
    rows = MultimodalHiddenRows(rows=Tensor(data_type=DATA_TYPE_BFLOAT16, shape=[1, 4], data=b"\xff" * 8))
    thinker = ScriptedThinker([GenerateResponse(hidden_rows=rows), *answer(fakes.thinker.token_ids)])
    await conduct(replace(conductor, stages=replace(fakes.stages(), thinker=thinker)), asked(media=(b"x",)))
    assert fakes.talker.behaviour.received[1].hidden_rows == rows


async def test_all_that_was_said_is_spoken_but_its_end(conductor: Conductor, fakes: Fakes) -> None:
    await conduct(conductor, asked())
    assert spoken_ids(fakes) == list(fakes.thinker.token_ids[:-1])


async def test_the_token_cut_by_length_is_written_and_not_spoken(conductor: Conductor, fakes: Fakes) -> None:
    events = await conduct(conductor, asked(limit=3))
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert (end.finish_reason, end.text_tokens) == ("length", 3)
    assert spoken_ids(fakes) == list(fakes.thinker.token_ids[:2])
    whole = await conduct(conductor, asked(speech=None))
    assert text_of(whole).startswith(text_of(events))


@pytest.mark.parametrize(
    ("stop", "left"),
    [
        (" cat", "the"),
        ("at is", "the c"),
        ("black", "the cat is "),
        ("the", ""),
        ("ck", "the cat is bla"),
        ("white", "the cat is black"),
        ("blacker", "the cat is black"),
    ],
)
@pytest.mark.parametrize("speech", [None, SPEECH])
async def test_a_stop_string_ends_text_and_speech(
    conductor: Conductor, fakes: Fakes, write: Write, stop: str, left: str, speech: SpeechRequest | None
) -> None:
    events = await conduct(conductor, asked(stop=(stop,), speech=speech))
    assert text_of(events) == left
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert end.finish_reason == "stop"
    assert fakes.open_calls == 0
    if speech is not None:
        spoken = bytes_of(conductor, spoken_ids(fakes))
        assert left.startswith(spoken)
        assert fakes.talker.behaviour.calls_finished == 1


async def test_a_stop_closes_the_thinker_early(conductor: Conductor, fakes: Fakes, write: Write) -> None:
    fakes.thinker.token_ids = write("one two three four five six seven")
    events = await conduct(conductor, asked(stop=("two",), speech=None))
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert end.text_tokens < len(fakes.thinker.token_ids)
    assert (fakes.thinker.behaviour.calls_begun, fakes.thinker.behaviour.calls_finished) == (1, 0)


def bytes_of(conductor: Conductor, ids: list[int]) -> str:
    return b"".join(conductor.prompts.token_bytes[token_id] for token_id in ids).decode()


async def test_an_end_at_once_is_an_empty_answer(conductor: Conductor, fakes: Fakes) -> None:
    fakes.thinker.token_ids, fakes.talker.frames_after_text = fakes.thinker.token_ids[-1:], 0
    events = await conduct(conductor, asked())
    assert len(events) == 1
    assert spoken_ids(fakes) == []
    assert kinds(fakes.codec) == ["end"]


async def test_sound_leaves_after_one_frame(conductor: Conductor, fakes: Fakes) -> None:
    talker = ScriptedTalker(frames=5, permits=asyncio.Semaphore(1))
    stages = replace(fakes.stages(), talker=talker)
    async with asyncio.timeout(5), replace(conductor, stages=stages).open_turn(asked(), a_watch()) as events:
        first = await anext(event async for event in events if isinstance(event, SpeechDelta))
        assert len(first.samples) == 1920 - 555
        assert [request.frames.codes.shape[0] for request in fakes.codec.behaviour.received] == [1]


async def test_tokens_reach_the_talker_while_the_thinker_thinks(conductor: Conductor, fakes: Fakes) -> None:
    thinker = ScriptedThinker(answer(fakes.thinker.token_ids), permits=asyncio.Semaphore(2))
    stages = replace(fakes.stages(), thinker=thinker)
    async with asyncio.timeout(5), replace(conductor, stages=stages).open_turn(asked(), a_watch()) as events:
        await anext(event async for event in events if isinstance(event, SpeechDelta))
        assert thinker.sent == 2
        for _ in thinker.responses:
            thinker.permits.release()  # type: ignore[union-attr]
        assert isinstance([event async for event in events][-1], TurnEnd)


async def test_speech_that_ends_first_lets_the_text_go_on(conductor: Conductor, fakes: Fakes, write: Write) -> None:
    talker = ScriptedTalker(frames=1, permits=asyncio.Semaphore(1))
    thinker = ScriptedThinker(answer(write("one two three four")), permits=asyncio.Semaphore(2))
    stages = replace(fakes.stages(), talker=talker, thinker=thinker)
    async with asyncio.timeout(5), replace(conductor, stages=stages).open_turn(asked(), a_watch()) as events:
        await anext(event async for event in events if isinstance(event, SpeechDelta))
        await asyncio.sleep(0.05)
        for _ in thinker.responses:
            thinker.permits.release()  # type: ignore[union-attr]
        rest = [event async for event in events]
    assert text_of(rest).endswith("four")


async def test_a_slow_reader_holds_the_stages_back(
    prompts: PromptBuilder, settings: GatewaySettings, fakes: Fakes, write: Write
) -> None:
    fakes.thinker.token_ids = write("so many words " * 40)
    thinker = ScriptedThinker(answer(fakes.thinker.token_ids))
    few = settings.model_copy(update={"event_queue_items": 4})
    conductor = Conductor(replace(fakes.stages(), thinker=thinker), prompts, LIMITS, few)
    async with conductor.open_turn(asked(limit=1000), a_watch()) as events:
        await asyncio.sleep(0.1)
        assert thinker.sent <= 6
        read = [event async for event in events]
    assert text_of(read) == "so many words " * 40
