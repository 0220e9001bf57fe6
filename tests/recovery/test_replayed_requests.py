"""What another replica is told: everything again, of bulk as much as is kept, and the rest from where it came."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from antiphon import errors
from antiphon.hosting import fakes
from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import process_metrics
from antiphon.telemetry.span_records import SpanRing
from antiphon.v1.codec_service_pb2 import DecodeInputEnd, DecodeRequest, DecodeResponse, DecodeStart
from antiphon.v1.encoder_service_pb2 import EncodeResponse
from antiphon.v1.media_pb2 import MODALITY_AUDIO, CodecFrames, EmbeddingRows, MultimodalHiddenRows
from antiphon.v1.thinker_service_pb2 import GenerateInputEnd, GenerateRequest, GenerateResponse, GenerateStart
from antiphon.wire import arrays
from antiphon.wire.clients import CallLimits, StageCaller
from antiphon.wire.directory import StaticDirectory, preference
from antiphon.wire.fakes import (
    SAMPLES_HELD_BACK,
    SAMPLES_PER_FRAME,
    Behaviour,
    FakeCodec,
    FakeEncoders,
    FakeTalker,
    FakeThinker,
)
from antiphon.wire.replay import RepeatableRequests
from antiphon.wire.resumption import EncodeResumption, GenerateResumption
from antiphon.wire.stages import Stages

LIMITS = ServerLimits(drain_seconds=0.2)
ROW = arrays.pack(np.zeros((1, 8), np.float32))
PARTS = [
    EmbeddingRows(modality=MODALITY_AUDIO, first_row=row, rows=arrays.pack(np.zeros((1, 8), np.float32)))
    for row in range(6)
]


async def generate_over(
    folder: Path, first: FakeThinker, second: FakeThinker, limits: CallLimits, *, makes_again: bool = False
) -> list[GenerateResponse]:
    addresses = [f"unix:{folder}/{name}" for name in ("first", "second")]
    async with AsyncExitStack() as stack:
        for address, thinker in zip(addresses, (first, second), strict=True):
            stages = Stages(FakeEncoders(), thinker, FakeTalker(), FakeCodec())
            await stack.enter_async_context(serving(fakes.hosted(stages), address, LIMITS))
        caller = await stack.enter_async_context(StageCaller(StaticDirectory({"thinker": addresses}), limits))
        source: AsyncIterator[GenerateRequest] = asked()
        if makes_again:
            source = RepeatableRequests(source, rows)
        return [answer async for answer in caller.stages().thinker.generate(source)]


async def asked() -> AsyncGenerator[GenerateRequest, None]:
    yield GenerateRequest(start=GenerateStart(return_multimodal_hidden_rows=True))
    async for row in rows():
        yield row
    yield GenerateRequest(end=GenerateInputEnd())


async def rows() -> AsyncGenerator[GenerateRequest, None]:
    for part in PARTS:
        yield GenerateRequest(rows=part)


def breaking(after: int) -> FakeThinker:
    return FakeThinker(behaviour=Behaviour(failure=errors.Unavailable("Gone."), answers_before_failure=after))


@pytest.mark.parametrize("after", range(5))
@pytest.mark.parametrize("kept_bytes", [1 << 20, 100], ids=["kept", "made again"])
async def test_wherever_it_breaks_off_ids_and_rows_come_once(after: int, kept_bytes: int, tmp_path: Path) -> None:
    second = FakeThinker()
    limits = CallLimits(max_replay_bytes=kept_bytes)
    answers = await generate_over(tmp_path, breaking(after), second, limits, makes_again=True)
    kinds = [answer.WhichOneof("message") for answer in answers]
    assert kinds == ["hidden_rows", *["token"] * 4, "end"]
    assert [answer.token.id for answer in answers[1:-1]] == list(second.token_ids)
    start, *others, end = second.behaviour.received
    assert [request.rows for request in others] == PARTS
    assert end.HasField("end")
    assert list(start.start.generated_ids) == list(second.token_ids[: max(after - 1, 0)])
    assert start.start.return_multimodal_hidden_rows == (after <= 1)


async def test_bulk_that_is_neither_kept_nor_made_again_is_the_end(tmp_path: Path) -> None:
    second = FakeThinker()
    with pytest.raises(errors.Unavailable, match="Gone"):
        await generate_over(tmp_path, breaking(2), second, CallLimits(max_replay_bytes=100))
    assert second.behaviour.calls_begun == 0


async def test_what_breaks_its_replica_is_tried_once_more_and_not_everywhere(tmp_path: Path) -> None:
    def broken() -> FakeThinker:
        return FakeThinker(behaviour=Behaviour(failure=errors.broken("thinker"), answers_before_failure=2))

    first, second = broken(), broken()
    with pytest.raises(errors.Unavailable, match="The thinker broke"):
        await generate_over(tmp_path, first, second, CallLimits())
    assert (first.behaviour.calls_begun, second.behaviour.calls_begun) == (1, 1)


async def test_the_turn_is_told_and_each_attempt_is_a_span_of_its_own(tmp_path: Path) -> None:
    ring = SpanRing()
    configured = tracing.configure("antiphon", ring)
    before = failovers()
    with tracing.span("turn"):
        await generate_over(tmp_path, breaking(2), FakeThinker(), CallLimits())
    configured.close()
    (turn,) = [span for span in ring.spans() if span.name == "turn"]
    calls = [span for span in ring.spans() if span.parent_id == turn.span_id]
    assert [call.failed for call in calls] == [True, False]
    assert [event.name for event in turn.events] == [names.EVENT_FAILOVER]
    assert failovers() == before + 1


def failovers() -> float:
    return process_metrics().registry.get_sample_value("antiphon_failovers_total", {"stage": "thinker"}) or 0.0


async def test_a_codec_that_is_full_when_it_has_been_told_no_frame_yet_leaves_the_speech_to_another(
    tmp_path: Path,
) -> None:
    """It was told where the listener is; the frames come later."""
    addresses = [f"unix:{tmp_path}/{name}" for name in ("full", "free")]
    full, free = FullCodec(), FakeCodec()
    async with AsyncExitStack() as stack:
        for address, codec in zip(addresses, (full, free), strict=True):
            stages = Stages(FakeEncoders(), FakeThinker(), FakeTalker(), codec)
            await stack.enter_async_context(serving(fakes.hosted(stages), address, LIMITS))
        caller = await stack.enter_async_context(StageCaller(StaticDirectory({"codec": addresses})))
        answers = [answer async for answer in caller.stages().codec.decode(rest_of_a_speech(full.has_refused))]
    waveform, end = answers
    assert waveform.waveform.first_sample == 1000
    assert end.end.sample_count == 2 * SAMPLES_PER_FRAME - SAMPLES_HELD_BACK


class FullCodec(FakeCodec):
    def __init__(self) -> None:
        super().__init__()
        self.has_refused = asyncio.Event()

    async def decode(
        self, requests: AsyncIterator[DecodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[DecodeResponse, None]:
        del timeout_seconds
        await anext(requests)
        self.has_refused.set()
        raise errors.AtCapacity("All places of the codec are taken.")
        yield


async def rest_of_a_speech(begins: asyncio.Event) -> AsyncGenerator[DecodeRequest, None]:
    yield DecodeRequest(start=DecodeStart(delivered_samples=1000))
    await begins.wait()
    await asyncio.sleep(0.1)
    yield DecodeRequest(frames=CodecFrames(codes=arrays.pack(np.zeros((2, 16), np.int16))))
    yield DecodeRequest(end=DecodeInputEnd())


def test_rows_that_are_known_in_part_lose_that_part() -> None:
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    resumption = EncodeResumption()
    first = EncodeResponse(rows=EmbeddingRows(modality=MODALITY_AUDIO, rows=arrays.pack(values[:4])))
    again = EncodeResponse(
        rows=EmbeddingRows(modality=MODALITY_AUDIO, rows=arrays.pack(values), deepstack=[arrays.pack(-values)])
    )
    assert resumption.news(first) is first
    assert resumption.news(first) is None
    new = resumption.news(again)
    assert new is not None
    assert new.rows.first_row == 4
    np.testing.assert_array_equal(arrays.unpack(new.rows.rows, name="rows", shape=(2, 4)), values[4:])
    np.testing.assert_array_equal(arrays.unpack(new.rows.deepstack[0], name="rows", shape=(2, 4)), -values[4:])


def test_hidden_rows_that_are_known_in_part_lose_that_part() -> None:
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    resumption = GenerateResumption()
    resumption.news(GenerateResponse(hidden_rows=MultimodalHiddenRows(rows=arrays.pack(values[:5]))))
    new = resumption.news(GenerateResponse(hidden_rows=MultimodalHiddenRows(first_row=2, rows=arrays.pack(values[2:]))))
    assert new is not None
    assert new.hidden_rows.first_row == 5
    np.testing.assert_array_equal(arrays.unpack(new.hidden_rows.rows, name="rows", shape=(1, 4)), values[5:])


def test_each_conversation_prefers_another_and_one_that_leaves_moves_only_its_own() -> None:
    addresses = [f"10.0.0.{host}:50051" for host in range(5)]
    keys = [f"conversation {number}".encode() for number in range(1000)]

    def home(key: bytes, among: list[str]) -> str:
        return max(among, key=lambda address: preference(key, address))

    homes = {key: home(key, addresses) for key in keys}
    counts = [list(homes.values()).count(address) for address in addresses]
    assert min(counts) > 150
    for key in keys:
        assert home(key, addresses[:4]) == homes[key] or homes[key] == addresses[4]
