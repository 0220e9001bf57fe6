"""One turn over the stages: who gets what and when, how it ends, and that nothing outlives it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.trace import INVALID_SPAN

from antiphon.errors import AtCapacity, DeadlineExceeded, InternalError, Unavailable
from antiphon.prompt.conversation import Audio, Conversation, Message, Part, Text
from antiphon.prompt.prompt import PromptBuilder
from antiphon.telemetry.first_packet import FirstPacketClock
from antiphon.telemetry.metrics import Metrics
from antiphon.v1.codec_service_pb2 import DecodeRequest, DecodeResponse
from antiphon.v1.generation_pb2 import FINISH_REASON_STOP, Sampling, Timings
from antiphon.v1.media_pb2 import MODALITY_AUDIO, CodecFrames, MultimodalHiddenRows
from antiphon.v1.talker_service_pb2 import SpeakEnd, SpeakRequest, SpeakResponse
from antiphon.v1.tensor_pb2 import DATA_TYPE_BFLOAT16, Tensor
from antiphon.v1.thinker_service_pb2 import GenerateEnd, GenerateRequest, GenerateResponse, TextToken
from antiphon.wire import arrays
from antiphon.wire.fakes import FakeCodec, FakeEncoders, FakeTalker, FakeThinker
from services.gateway.config import GatewaySettings
from services.gateway.turn import Conductor
from services.gateway.turn_messages import TurnLimits
from services.gateway.turn_request import Medium, SpeechDelta, SpeechRequest, TextDelta, TurnEnd, TurnEvent, TurnRequest
from services.gateway.turn_watch import TurnWatch
from tests.gateway.conftest import Fakes

SPEECH = SpeechRequest("ethan", Sampling(temperature=0.3), max_frames=100)
LIMITS = TurnLimits(context_tokens=32_768, talker_context_rows=32_768, default_answer_tokens=64, media_seconds=60)

Write = Callable[[str], tuple[int, ...]]


def asked(
    *, speech: SpeechRequest | None = SPEECH, stop: tuple[str, ...] = (), media: tuple[bytes, ...] = (), limit: int = 64
) -> TurnRequest:
    parts: tuple[Part, ...] = (*(Audio() for _ in media), Text("what is it"))
    return TurnRequest(
        conversation=Conversation((Message("user", parts),)),
        media=tuple(Medium(MODALITY_AUDIO, data, "messages") for data in media),
        sampling=Sampling(),
        max_answer_tokens=limit,
        stop=stop,
        speech=speech,
    )


@pytest.fixture(scope="module")
def prompts(nano: Path) -> PromptBuilder:
    return PromptBuilder(nano)


@pytest.fixture
def conductor(prompts: PromptBuilder, settings: GatewaySettings, fakes: Fakes) -> Conductor:
    return Conductor(fakes.stages(), prompts, LIMITS, settings)


def a_watch() -> TurnWatch:
    return TurnWatch(INVALID_SPAN, Metrics(), FirstPacketClock())


async def conduct(conductor: Conductor, request: TurnRequest) -> list[TurnEvent]:
    async with conductor.open_turn(request, a_watch()) as events:
        return [event async for event in events]


def text_of(events: list[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def spoken_ids(fakes: Fakes) -> list[int]:
    """What the Talker was told to speak: its tokens before the last, which closes the speech."""
    tokens = [request.token for request in fakes.talker.behaviour.received if request.HasField("token")]
    assert [token.is_last for token in tokens] == [False] * (len(tokens) - 1) + [True]
    return [token.id for token in tokens[:-1]]


def kinds(fake: FakeEncoders | FakeThinker | FakeTalker | FakeCodec) -> list[str]:
    return [request.WhichOneof("message") for request in fake.behaviour.received]


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


# Streams that a test steps through.


def answer(token_ids: tuple[int, ...]) -> list[GenerateResponse]:
    tokens = [TextToken(id=token_id, is_last=index == len(token_ids) - 1) for index, token_id in enumerate(token_ids)]
    end = GenerateEnd(finish_reason=FINISH_REASON_STOP, timings=Timings(steps=1))
    return [*(GenerateResponse(token=token) for token in tokens), GenerateResponse(end=end)]


@dataclass
class ScriptedThinker:
    """Answers what it was given, each answer after a permit where a semaphore is set."""

    responses: list[GenerateResponse]
    permits: asyncio.Semaphore | None = None
    sent: int = 0

    async def generate(
        self, requests: AsyncIterator[GenerateRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[GenerateResponse, None]:
        async for _ in requests:
            pass
        for response in self.responses:
            if self.permits is not None:
                await self.permits.acquire()
            self.sent += 1
            yield response


@dataclass
class ScriptedTalker:
    """Frames by permit; reads its requests only until it has sent `frames`, then ends its speech."""

    frames: int
    permits: asyncio.Semaphore
    tokens: list[int] = field(default_factory=list)

    async def speak(
        self, requests: AsyncIterator[SpeakRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[SpeakResponse, None]:
        reading = asyncio.create_task(self._read(requests))
        try:
            for index in range(self.frames):
                await self.permits.acquire()
                codes = arrays.pack(np.zeros((1, 16), np.int16))
                yield SpeakResponse(frames=CodecFrames(first_frame=index, codes=codes))
        finally:
            reading.cancel()
        yield SpeakResponse(end=SpeakEnd(frame_count=self.frames, timings=Timings(steps=self.frames)))

    async def _read(self, requests: AsyncIterator[SpeakRequest]) -> None:
        async for request in requests:
            if request.HasField("token"):
                self.tokens.append(request.token.id)


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


# How turns fail and stop.


@pytest.mark.parametrize("stage", ["encoders", "thinker", "talker", "codec"])
@pytest.mark.parametrize("answers_before", [0, 1, 2])
async def test_a_failing_stage_fails_the_turn_and_frees_the_others(
    conductor: Conductor, fakes: Fakes, stage: str, answers_before: int
) -> None:
    behaviour = getattr(fakes, stage).behaviour
    behaviour.failure, behaviour.answers_before_failure = Unavailable(f"{stage} is away"), answers_before
    with pytest.raises(Unavailable, match=stage):
        await conduct(conductor, asked(media=(b"x",)))
    assert fakes.open_calls == 0
    assert only_this_task_is_left()


async def test_a_full_stage_keeps_its_advice(conductor: Conductor, fakes: Fakes) -> None:
    fakes.talker.behaviour.failure = AtCapacity("full", retry_after_seconds=7)
    with pytest.raises(AtCapacity) as raised:
        await conduct(conductor, asked())
    assert raised.value.retry_after_seconds == 7


async def test_a_defect_is_an_internal_error(conductor: Conductor, fakes: Fakes) -> None:
    fakes.codec.behaviour.failure = ZeroDivisionError("secret words")  # type: ignore[assignment]
    with pytest.raises(InternalError) as raised:
        await conduct(conductor, asked())
    assert "secret" not in raised.value.message


async def test_a_stream_that_merely_stops_is_no_end(conductor: Conductor, fakes: Fakes) -> None:
    thinker = ScriptedThinker(answer(fakes.thinker.token_ids)[:-1])
    with pytest.raises(InternalError):
        await conduct(replace(conductor, stages=replace(fakes.stages(), thinker=thinker)), asked(speech=None))


async def test_a_turn_that_takes_too_long_is_stopped(
    prompts: PromptBuilder, settings: GatewaySettings, fakes: Fakes
) -> None:
    fakes.talker.behaviour.pause_seconds = 5
    hasty = settings.model_copy(update={"turn_seconds": 0.05})
    with pytest.raises(DeadlineExceeded):
        await conduct(Conductor(fakes.stages(), prompts, LIMITS, hasty), asked())
    assert fakes.open_calls == 0


@pytest.mark.parametrize("events_read", range(12))
async def test_leaving_a_turn_stops_every_stage_before_it_returns(
    conductor: Conductor, fakes: Fakes, events_read: int
) -> None:
    for fake in fakes.all:
        fake.behaviour.pause_seconds = 0.001
    async with conductor.open_turn(asked(media=(b"x",)), a_watch()) as events:
        for _ in range(events_read):
            await anext(events)
    assert fakes.open_calls == 0
    assert only_this_task_is_left()


@pytest.mark.parametrize("milliseconds", range(0, 20, 2))
async def test_cancelling_the_reader_stops_every_stage(conductor: Conductor, fakes: Fakes, milliseconds: int) -> None:
    for fake in fakes.all:
        fake.behaviour.pause_seconds = 0.002
    reading = asyncio.create_task(conduct(conductor, asked(media=(b"x",))))
    await asyncio.sleep(milliseconds / 1e3)
    reading.cancel()
    await asyncio.wait({reading})
    assert fakes.open_calls == 0
    assert only_this_task_is_left()


async def test_a_codec_that_loses_its_caller_is_closed(conductor: Conductor, fakes: Fakes) -> None:
    """Also a stage that waits for ever."""
    stages = replace(fakes.stages(), codec=(codec := EndlessCodec()))
    async with asyncio.timeout(5), replace(conductor, stages=stages).open_turn(asked(), a_watch()) as events:
        await anext(events)
        await codec.began.wait()
    assert codec.was_closed


@dataclass
class EndlessCodec:
    began: asyncio.Event = field(default_factory=asyncio.Event)
    was_closed: bool = False

    async def decode(
        self, requests: AsyncIterator[DecodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[DecodeResponse, None]:
        try:
            self.began.set()
            await asyncio.Event().wait()
            yield DecodeResponse()
        finally:
            self.was_closed = True


def only_this_task_is_left() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


async def test_errors_come_after_what_was_said_before(conductor: Conductor, fakes: Fakes) -> None:
    behaviour = fakes.thinker.behaviour
    behaviour.failure, behaviour.answers_before_failure, behaviour.pause_seconds = Unavailable("away"), 2, 0.01
    said: list[TurnEvent] = []

    async def read() -> None:
        async with conductor.open_turn(asked(speech=None), a_watch()) as events:
            async for event in events:
                said.append(event)

    with pytest.raises(Unavailable):
        await read()
    assert text_of(said)
