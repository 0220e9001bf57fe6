"""Spans: nesting, failures, context across a process, and where they are sent."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from antiphon.telemetry import names, tracing
from antiphon.telemetry.otlp_receiver import receiving
from antiphon.telemetry.span_records import SpanRecord, SpanRing
from antiphon.telemetry.trace_assembly import TraceAssembly


@pytest.fixture
def ring() -> Iterator[SpanRing]:
    ring = SpanRing()
    traced = tracing.configure("antiphon-test", ring)
    yield ring
    traced.close()


def test_spans_nest_and_pass_their_stage_on(ring: SpanRing) -> None:
    with tracing.span("turn", {names.STAGE: "gateway"}, kind=SpanKind.SERVER):
        with tracing.span("inner"):
            assert ring.open_count == 2
        tracing.record("earlier", 1_000, 3_000)
    inner, earlier, turn = ring.spans()
    assert (inner.parent_id, earlier.parent_id, turn.parent_id) == (turn.span_id, turn.span_id, None)
    assert {span.stage for span in ring.spans()} == {"gateway"}
    assert (earlier.start_ns, earlier.end_ns, turn.kind) == (1_000, 3_000, "server")
    assert ring.open_count == 0


def test_a_failure_leaves_its_class_and_not_its_text(ring: SpanRing) -> None:
    with pytest.raises(KeyError), tracing.span("turn"):
        raise KeyError("what the user said")
    (span,) = ring.spans()
    assert span.failed
    assert span.attributes == {names.ERROR_TYPE: "KeyError"}
    assert not span.events


async def test_an_early_closed_generator_is_no_failure(ring: SpanRing) -> None:
    async def numbers() -> AsyncIterator[int]:
        with tracing.detached_span("numbers"):
            yield 1
            yield 2

    opened = numbers()
    await anext(opened)
    assert tracing.current_trace_id() is None
    await opened.aclose()  # type: ignore[attr-defined]
    assert [span.failed for span in ring.spans()] == [False]


def test_context_crosses_as_w3c_headers_with_baggage(ring: SpanRing) -> None:
    with tracing.span("client") as client:
        token = context.attach(baggage.set_baggage("session", "s-1"))
        carried = dict(tracing.context_to_metadata())
        context.detach(token)
    assert carried["traceparent"].split("-")[1] == f"{client.get_span_context().trace_id:032x}"
    arrived = tracing.context_from_headers(carried)
    assert baggage.get_baggage("session", arrived) == "s-1"
    with tracing.span("server", parent=arrived):
        assert tracing.current_trace_id() == carried["traceparent"].split("-")[1]


def test_headers_that_are_not_a_context_begin_a_new_trace(ring: SpanRing) -> None:
    for header in ("", "garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
        with tracing.span("server", parent=tracing.context_from_headers({"traceparent": header})):
            pass
    assert [span.parent_id for span in ring.spans()] == [None] * 3


def test_overlong_headers_are_left_behind(ring: SpanRing) -> None:
    header = f"00-{'ab' * 16}-{'cd' * 8}-01"
    arrived = tracing.context_from_headers({"traceparent": header, "baggage": "a=" + "x" * 5000})
    with tracing.span("server", parent=arrived):
        carried = dict(tracing.context_to_metadata())
    assert set(carried) == {"traceparent"}
    assert ring.spans()[0].trace_id == "ab" * 16


def test_a_parent_that_was_not_sampled_keeps_its_trace_silent(ring: SpanRing) -> None:
    header = f"00-{'ab' * 16}-{'cd' * 8}-00"
    with tracing.span("server", parent=tracing.context_from_headers({"traceparent": header})), tracing.span("inner"):
        pass
    assert ring.spans() == []


def test_the_ring_is_bounded_and_finds_one_trace() -> None:
    small = SpanRing(capacity=3)
    traced = tracing.configure("antiphon-test", small)
    for index in range(5):
        with tracing.span(f"s{index}"):
            wanted = tracing.current_trace_id()
    traced.close()
    assert [span.name for span in small.spans()] == ["s2", "s3", "s4"]
    assert [span.name for span in small.spans(wanted)] == ["s4"]
    small.clear()
    assert small.spans() == []


def test_a_closed_destination_hears_no_more_and_the_provider_stays(ring: SpanRing) -> None:
    provider = trace.get_tracer_provider()
    other = SpanRing()
    tracing.configure("another-name", other).close()
    with tracing.span("after"):
        pass
    assert trace.get_tracer_provider() is provider
    assert isinstance(provider, TracerProvider)
    assert other.spans() == []
    assert [span.name for span in ring.spans()] == ["after"]


async def test_spans_reach_a_collector_by_the_standard_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[SpanRecord] = []
    assembly = TraceAssembly(settle_seconds=0.0)

    def take(spans: Sequence[SpanRecord]) -> None:
        received.extend(spans)
        assembly.add(spans, 0.0)

    async with receiving("127.0.0.1:0", take) as port:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        ring = SpanRing()
        traced = tracing.configure("antiphon-test", ring)
        with tracing.span("turn", {names.STAGE: "gateway", names.FRAME_COUNT: 15}, kind=SpanKind.SERVER) as turn:
            tracing.first_event(turn, names.EVENT_FIRST_PCM)
            with pytest.raises(ValueError, match="x"), tracing.span("inner", {"count": 3, "flags": [1, 2]}):
                raise ValueError("x")
        await asyncio.to_thread(traced.close)
    assert len(received) == 2
    (finished,) = assembly.take_finished(0.0)
    turn_record = next(span for span in finished if span.name == "turn")
    inner_record = next(span for span in finished if span.name == "inner")
    assert turn_record.attributes[names.FRAME_COUNT] == 15
    assert [event.name for event in turn_record.events] == [names.EVENT_FIRST_PCM]
    assert (turn_record.kind, turn_record.service, inner_record.failed) == ("server", ring.spans()[0].service, True)
    assert (turn_record.start_ns, turn_record.end_ns) == (ring.spans()[1].start_ns, ring.spans()[1].end_ns)


@pytest.mark.parametrize(
    "variables",
    [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}, {}],
    ids=["disabled", "none", "unset"],
)
def test_nothing_is_exported_unless_the_variables_say_so(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    if variables:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.WARNING)
    traced = tracing.configure("antiphon-test")
    with tracing.span("turn"):
        pass
    traced.close()
    assert caplog.text == ""


def test_a_provider_that_is_already_there_is_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a Ray Serve replica whose tracing is on."""
    theirs, ours = SpanRing(), SpanRing()
    foreign = TracerProvider()
    foreign.add_span_processor(theirs)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: foreign)
    traced = tracing.configure("antiphon-talker", ours)
    foreign.get_tracer("serve").start_span("replica_handle_request").end()
    traced.close()
    foreign.get_tracer("serve").start_span("later").end()
    assert [span.name for span in theirs.spans()] == ["replica_handle_request", "later"]
    assert [span.name for span in ours.spans()] == ["replica_handle_request"]
