"""Calls between real clients and real servers: answers, ends, cancellations, deadlines, errors, traces."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from antiphon import errors
from antiphon.hosting.server_calls import ActiveCalls, CallInterceptor
from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.span_records import SpanRecord, SpanRing
from antiphon.v1.encoder_service_pb2 import EncodeInputEnd, EncodeRequest, EncodeStart, MediaChunk, MediaItem
from antiphon.v1.media_pb2 import MODALITY_AUDIO
from antiphon.v1.talker_service_pb2 import SpeakEnd, SpeakRequest, SpeakResponse
from antiphon.wire import methods
from antiphon.wire.clients import CallLimits
from antiphon.wire.fakes import Behaviour, FakeCodec, FakeEncoders, FakeTalker, FakeThinker, fake_stages
from antiphon.wire.stages import Stages
from tests.hosting import requests
from tests.hosting.conftest import Opener


def only_talker(talker: FakeTalker) -> Stages:
    return Stages(FakeEncoders(), FakeThinker(), talker, FakeCodec())


async def eventually(condition: Callable[[], bool], timeout_seconds: float = 5.0) -> None:
    async with asyncio.timeout(timeout_seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for lies in another library
            await asyncio.sleep(0.01)


async def drained(answers: AsyncIterator[object]) -> int:
    """How many answers came until the end."""
    return len([answer async for answer in answers])


async def test_every_stage_answers_in_order_and_ends(opened: Opener) -> None:
    async with opened(fake_stages()) as (_, caller):
        stages = caller.stages()
        tokens = [answer async for answer in stages.thinker.generate(requests.generate())]
        assert [answer.token.id for answer in tokens[:-1]] == [11, 12, 13, 2]
        assert tokens[-1].HasField("end")
        frames = [answer async for answer in stages.talker.speak(requests.speak())]
        assert [answer.frames.first_frame for answer in frames[:-1]] == list(range(6))
        waveforms = [answer async for answer in stages.codec.decode(requests.decode(3))]
        assert waveforms[-1].end.sample_count == 3 * 1920 - 555


async def test_a_message_close_to_the_bound_passes_and_one_beyond_it_is_too_large(opened: Opener) -> None:
    async def media(byte_count: int) -> AsyncIterator[EncodeRequest]:
        yield EncodeRequest(start=EncodeStart(items=[MediaItem(modality=MODALITY_AUDIO, byte_count=byte_count)]))
        yield EncodeRequest(chunk=MediaChunk(index=0, data=bytes(byte_count)))
        yield EncodeRequest(end=EncodeInputEnd())

    async with opened(fake_stages()) as (_, caller):
        encoders = caller.stages().encoders
        assert [answer async for answer in encoders.encode(media(63 << 20))][-1].HasField("end")
        with pytest.raises(errors.TooLarge):
            await drained(encoders.encode(media(65 << 20)))


async def test_closing_the_answers_cancels_the_call_and_closes_the_requests(opened: Opener) -> None:
    closed = []

    async def endless() -> AsyncIterator[SpeakRequest]:
        try:
            async for request in requests.speak(range(2, 10_000)):
                yield request
                await asyncio.sleep(0.001)
        finally:
            closed.append(True)

    talker = FakeTalker()
    async with opened(only_talker(talker)) as (server, caller):
        async with aclosing(caller.stages().talker.speak(endless())) as answers:
            await anext(answers)
            assert talker.behaviour.open_calls == 1
        assert closed == [True]
        await eventually(lambda: talker.behaviour.open_calls == 0 and server.active.total == 0)
        assert talker.behaviour.calls_finished == 0


@pytest.mark.parametrize("seed", range(20))
async def test_a_call_cancelled_anywhere_leaves_nothing(opened: Opener, ring: SpanRing, seed: int) -> None:
    pause = np.random.default_rng(seed).uniform(0, 0.03)
    talker = FakeTalker(behaviour=Behaviour(pause_seconds=0.002))

    async def listen() -> None:
        async with aclosing(caller.stages().talker.speak(requests.speak(range(2, 50)))) as answers:
            async for _ in answers:
                pass

    async with opened(only_talker(talker)) as (server, caller):
        tasks_before = len(asyncio.all_tasks())
        task = asyncio.create_task(listen())
        await asyncio.sleep(pause)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await eventually(lambda: not talker.behaviour.open_calls and not server.active.total and not ring.open_count)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks_before)  # gRPC replaces the task that accepts calls


async def test_a_deadline_ends_both_sides(opened: Opener, ring: SpanRing) -> None:
    talker = FakeTalker(behaviour=Behaviour(pause_seconds=60))
    async with opened(only_talker(talker)) as (server, caller):
        with pytest.raises(errors.DeadlineExceeded):
            await drained(caller.stages().talker.speak(requests.speak(), timeout_seconds=0.2))
        await eventually(lambda: not talker.behaviour.open_calls and not server.active.total and not ring.open_count)
    statuses = {span.kind: span.attributes[names.RPC_RESPONSE_STATUS_CODE] for span in ring.spans()}
    assert statuses["client"] == "DEADLINE_EXCEEDED"
    # A call that took long to arrive has a later deadline there, and the caller's hanging up is seen before it.
    assert statuses["server"] in {"DEADLINE_EXCEEDED", "CANCELLED"}


async def test_requests_that_break_off_without_an_end_are_an_abort(opened: Opener) -> None:
    async def broken() -> AsyncIterator[SpeakRequest]:
        async for request in requests.speak():
            if request.token.is_last:
                return
            yield request

    async with opened(fake_stages(), None, CallLimits(attempts=1)) as (_, caller):
        with pytest.raises(errors.Unavailable, match="broke off"):
            await drained(caller.stages().talker.speak(broken()))


async def test_a_fault_in_the_requests_reaches_the_reader_of_the_answers(opened: Opener) -> None:
    async def faulty() -> AsyncIterator[SpeakRequest]:
        async for request in requests.speak(range(2, 10)):
            yield request
            if request.token.id == 4:
                raise errors.Unavailable("The thinker went away.")

    talker = FakeTalker()
    async with opened(only_talker(talker)) as (_, caller):
        with pytest.raises(errors.Unavailable, match="thinker went away"):
            await drained(caller.stages().talker.speak(faulty()))
        await eventually(lambda: talker.behaviour.open_calls == 0)


@pytest.mark.parametrize(
    "failure",
    [
        errors.InvalidInput("No such voice: expected tina; came bob.", param="audio.voice", code="voice_unknown"),
        errors.AtCapacity("Full.", retry_after_seconds=3.5),
        errors.ContextTooLong("Zu lang für dieses Modell.", param="messages"),
    ],
    ids=lambda failure: type(failure).__name__,
)
@pytest.mark.parametrize("answers_before", [0, 2])
async def test_errors_of_the_family_cross_the_wire_whole(
    opened: Opener, failure: errors.AntiphonError, answers_before: int
) -> None:
    talker = FakeTalker(behaviour=Behaviour(failure=failure, answers_before_failure=answers_before))
    async with opened(only_talker(talker)) as (_, caller):
        answers = caller.stages().talker.speak(requests.speak())
        for _ in range(answers_before):
            await anext(answers)
        with pytest.raises(type(failure)) as caught:
            await anext(answers)
    came = caught.value
    assert (came.message, came.param, came.code) == (failure.message, failure.param, failure.code)
    assert getattr(came, "retry_after_seconds", None) == getattr(failure, "retry_after_seconds", None)


async def test_a_server_that_ends_early_is_understood_while_requests_are_still_being_written(opened: Opener) -> None:
    class Hasty(FakeTalker):
        async def speak(self, requests, *, timeout_seconds=None):  # type: ignore[no-untyped-def]
            await anext(requests)
            if self.behaviour.failure is not None:
                raise self.behaviour.failure
            yield SpeakResponse(end=SpeakEnd(frame_count=0))

    for failure in (errors.TooLarge("Too large."), None):
        async with opened(only_talker(Hasty(behaviour=Behaviour(failure=failure)))) as (_, caller):
            for _ in range(30):
                answers = caller.stages().talker.speak(requests.speak(range(2, 200)))
                if failure is None:
                    assert await drained(answers) == 1
                else:
                    with pytest.raises(errors.TooLarge):
                        await drained(answers)


async def test_bytes_that_are_no_message_are_the_callers_fault(opened: Opener, tmp_path: Path) -> None:
    async with opened(fake_stages()), grpc.aio.insecure_channel(f"unix:{tmp_path}/stages.sock") as channel:
        for method in (methods.ENCODE, methods.GENERATE, methods.SPEAK, methods.DECODE):
            call = channel.stream_stream(method.path, None, None)(iter([b"\xff\xff\xff\xff"]))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert f"Expected a message antiphon.v1.{method.full_name.rpartition('/')[2]}Request" in str(caught.value)


class GoneContext:
    """Of a call whose client has just gone: grpc.aio lets writes fail until its cancellation arrives."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None

    async def write(self, _: object) -> None:
        raise grpc.aio.InternalError("the call is over")


async def test_an_answer_that_meets_the_end_of_its_call_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    async def speak(*_: object) -> AsyncIterator[SpeakResponse]:
        yield SpeakResponse(end=SpeakEnd())

    async def found(_: object) -> object:
        return grpc.stream_stream_rpc_method_handler(speak)

    interceptor = CallInterceptor({methods.SPEAK.service: "talker"}, ActiveCalls(1), Metrics())
    answer = await interceptor.intercept_service(found, SimpleNamespace(method=methods.SPEAK.path))
    with pytest.raises(asyncio.CancelledError):
        await answer.stream_stream(requests.speak(), GoneContext())
    assert not caplog.text


@pytest.mark.parametrize("kind", [KeyError, errors.InternalError])
async def test_a_defect_tells_its_trace_and_nothing_else(
    opened: Opener, ring: SpanRing, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    class Broken(FakeTalker):
        async def speak(self, requests, *, timeout_seconds=None):  # type: ignore[no-untyped-def]
            async for request in requests:
                raise kind(f"secret {request}")
            yield

    async with opened(only_talker(Broken())) as (_, caller):
        with tracing.span("turn"):
            trace_id = tracing.current_trace_id()
            with pytest.raises(errors.InternalError) as caught:
                await drained(caller.stages().talker.speak(requests.speak()))
    assert trace_id is not None
    assert trace_id in caught.value.message
    assert "secret" not in caught.value.message
    assert "A call failed by a defect." in caplog.text


async def test_cleanup_that_fails_in_a_cancelled_call_is_still_a_cancellation(opened: Opener, ring: SpanRing) -> None:
    class Groups(FakeTalker):
        async def speak(self, requests, *, timeout_seconds=None):  # type: ignore[no-untyped-def]
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(60))
                async for answer in super().speak(requests):
                    yield answer

    async with opened(only_talker(Groups())) as (server, caller):
        async with aclosing(caller.stages().talker.speak(requests.speak(range(2, 10_000)))) as answers:
            await anext(answers)
        await eventually(lambda: not server.active.total)
    server_span = next(span for span in ring.spans() if names.STAGE in span.attributes)
    assert server_span.attributes[names.RPC_RESPONSE_STATUS_CODE] == "CANCELLED"


def by_name(spans: list[SpanRecord]) -> dict[str, list[SpanRecord]]:
    found: dict[str, list[SpanRecord]] = {}
    for span in spans:
        found.setdefault(span.name, []).append(span)
    return found


async def test_client_and_server_share_one_trace_with_the_stages_spans_below(opened: Opener, ring: SpanRing) -> None:
    async with opened(fake_stages()) as (_, caller):
        with tracing.span("turn") as root:
            answers = caller.stages().talker.speak(requests.speak())
            async with aclosing(answers):
                await anext(answers)
                with tracing.span("between"):  # the call's span must not become ours
                    pass
                async for _ in answers:
                    pass
        root_id = f"{root.get_span_context().span_id:016x}"
    spans = by_name(ring.spans())
    client, server = sorted(spans["antiphon.v1.TalkerService/Speak"], key=lambda span: span.start_ns)
    assert len({span.trace_id for span in ring.spans()}) == 1
    assert client.parent_id == root_id
    assert spans["between"][0].parent_id == root_id
    assert server.parent_id == client.span_id
    assert server.attributes[names.RPC_METHOD] == server.name
    assert (
        server.attributes[names.RPC_RESPONSE_STATUS_CODE] == client.attributes[names.RPC_RESPONSE_STATUS_CODE] == "OK"
    )
    assert [event.name for event in server.events] == [names.EVENT_FIRST_FRAME]
    for name in (names.SPAN_QUEUE, names.SPAN_PREFILL, names.SPAN_DECODE):
        (phase,) = spans[name]
        assert phase.parent_id == server.span_id
        assert phase.stage == "talker"


async def test_back_pressure_reaches_the_source_of_the_requests(opened: Opener) -> None:
    sent = 0

    async def heavy() -> AsyncIterator[EncodeRequest]:
        nonlocal sent
        yield EncodeRequest(start=EncodeStart(items=[MediaItem(modality=MODALITY_AUDIO)]))
        for _ in range(200):
            sent += 1
            yield EncodeRequest(chunk=MediaChunk(data=bytes(1 << 20)))

    class Slow(FakeEncoders):
        async def encode(self, requests, *, timeout_seconds=None):  # type: ignore[no-untyped-def]
            await anext(requests)
            await asyncio.sleep(1.0)
            yield  # never reached in time

    stages = Stages(Slow(), FakeThinker(), FakeTalker(), FakeCodec())
    async with opened(stages) as (_, caller):
        task = asyncio.create_task(anext(caller.stages().encoders.encode(heavy())))
        await asyncio.sleep(0.5)
        assert 0 < sent < 50  # what fits into the transport's windows, and no more
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    gc.collect()
