"""One trace a turn, through HTTP and every gRPC service, and a first packet whose parts add up."""

import json
import secrets
from collections.abc import Sequence

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from antiphon.telemetry import names
from tests.end_to_end.conversations import openai_messages, sound, user
from tests.end_to_end.platform import Platform

CALLS = (
    "antiphon.v1.EncoderService/Encode",
    "antiphon.v1.ThinkerService/Generate",
    "antiphon.v1.TalkerService/Speak",
    "antiphon.v1.CodecService/Decode",
)


class TracedTurn:
    """A spoken question, streamed; its spans, and the timings that came with the answer."""

    def __init__(self, platform: Platform) -> None:
        self.trace_id, self.client_span_id = secrets.token_hex(16), secrets.token_hex(8)
        body = {
            "model": platform.checkpoint.name,
            "messages": openai_messages([user(sound(1.5), "What do you hear?")]),
            "modalities": ["text", "audio"],
            "audio": {"voice": "chelsie", "format": "pcm16"},
            "stream": True,
            "stream_options": {"include_usage": True, "include_timings": True},
        }
        headers = {"traceparent": f"00-{self.trace_id}-{self.client_span_id}-01"}
        url = f"{platform.parts.base_url}/v1/chat/completions"
        answer = httpx.post(url, json=body, headers=headers, timeout=60)
        chunks = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
        self.timings = json.loads(chunks[-1])["timings"]
        platform.wait_until_idle()
        self.spans = platform.parts.spans.ended[self.trace_id]

    def named(self, name: str, kind: SpanKind | None = None) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name and kind in (None, span.kind)]

    @property
    def root(self) -> ReadableSpan:
        return next(
            span for span in self.spans if span.kind is SpanKind.SERVER and names.HTTP_ROUTE in attributes(span)
        )


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def event_times(spans: Sequence[ReadableSpan]) -> dict[str, int]:
    return {event.name: event.timestamp for span in spans for event in span.events}


@pytest.fixture(scope="module")
def turn(nano_platform: Platform) -> TracedTurn:
    TracedTurn(nano_platform)  # the first turn pays for what is made once
    return TracedTurn(nano_platform)


def test_every_call_is_a_client_span_and_a_server_span_below_it(turn: TracedTurn) -> None:
    for call in CALLS:
        (client,), (server,) = turn.named(call, SpanKind.CLIENT), turn.named(call, SpanKind.SERVER)
        assert server.parent is not None
        assert client.parent is not None
        assert server.parent.span_id == client.context.span_id
        assert client.parent.span_id == turn.root.context.span_id
        assert attributes(server)[names.RPC_METHOD] == call


def test_the_root_span_continues_the_clients_trace(turn: TracedTurn) -> None:
    assert turn.root.parent is not None
    assert f"{turn.root.parent.span_id:016x}" == turn.client_span_id
    assert attributes(turn.root)[names.HTTP_ROUTE] == "/v1/chat/completions"


def test_what_comes_first_is_an_event_and_in_order(turn: TracedTurn) -> None:
    times = event_times([turn.root])
    order = [names.EVENT_FIRST_TOKEN, names.EVENT_FIRST_FRAME, names.EVENT_FIRST_PCM, names.EVENT_FIRST_BYTE]
    assert [name for name in times if name in order] == order
    assert sorted(times[name] for name in order) == [times[name] for name in order]


def test_the_parts_of_the_first_packet_add_up(turn: TracedTurn) -> None:
    found = attributes(turn.root)
    parts = [float(str(found[names.FIRST_PACKET_PART.format(part=part)])) for part in names.FIRST_PACKET_PARTS]
    total = float(str(found[names.FIRST_PACKET_TOTAL]))
    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(total, rel=0.02)
    started = turn.root.start_time
    assert started is not None
    measured = (event_times([turn.root])[names.EVENT_FIRST_BYTE] - started) / 1e6
    assert total == pytest.approx(measured, rel=0.02, abs=1.0)


def test_the_answer_tells_the_same_first_packet_as_the_trace(turn: TracedTurn) -> None:
    told = turn.timings["first_packet_ms"]
    assert turn.timings["trace_id"] == turn.trace_id
    assert told["total"] == pytest.approx(float(str(attributes(turn.root)[names.FIRST_PACKET_TOTAL])), rel=0.001)
    assert sum(told[part] for part in names.FIRST_PACKET_PARTS) == pytest.approx(told["total"], rel=0.02)


def test_each_stage_shows_its_queue_and_its_work(turn: TracedTurn) -> None:
    for call, work in zip(CALLS, ({"encode"}, {"prefill", "decode"}, {"prefill", "decode"}, {"decode"}), strict=True):
        (server,) = turn.named(call, SpanKind.SERVER)
        below = {span.name for span in turn.spans if span.parent and span.parent.span_id == server.context.span_id}
        assert names.SPAN_QUEUE in below, call
        assert work <= below, (call, below)


def test_no_span_tells_what_was_said(turn: TracedTurn) -> None:
    for span in turn.spans:
        told = json.dumps([attributes(span), [dict(event.attributes or {}) for event in span.events]], default=str)
        assert "hear" not in told.lower(), span.name
