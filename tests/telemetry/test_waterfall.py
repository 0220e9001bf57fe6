"""Traces as text, traces put together, and the table of the first packet."""

import pytest

from antiphon.telemetry import names, waterfall
from antiphon.telemetry.first_packet import FirstPacket, FirstPacketClock
from antiphon.telemetry.names import FIRST_PACKET_PARTS
from antiphon.telemetry.span_records import SpanRecord
from antiphon.telemetry.trace_assembly import TraceAssembly
from tests.telemetry.traces import span

TURN = [
    span("codec", "turn", 60, 90, stage="codec"),
    span("turn", None, 0, 100),
    span("talker", "turn", 20, 80, stage="talker", event_ms=50, failed=True),
    span("prefill", "talker", 21, 49, stage="talker"),
]


def test_rows_are_depth_first_in_the_order_of_their_starts() -> None:
    rows = waterfall.rows(TURN)
    assert [(row.span.name, row.depth, row.offset_ms) for row in rows] == [
        ("turn", 0, 0),
        ("talker", 1, 20),
        ("prefill", 2, 21),
        ("codec", 1, 60),
    ]


def test_a_span_without_its_parent_stands_at_the_top() -> None:
    rows = waterfall.rows([span("orphan", "elsewhere", 5, 6), *TURN])
    assert [row.span.name for row in rows if row.depth == 0] == ["turn", "orphan"]


def test_the_text_shows_times_failures_events_and_the_first_packet() -> None:
    packet = FirstPacket(dict.fromkeys(FIRST_PACKET_PARTS, 10.0))
    root = SpanRecord(
        **{name: getattr(TURN[1], name) for name in SpanRecord.__slots__} | {"attributes": packet.attributes()}
    )
    text = waterfall.render([TURN[0], root, *TURN[2:]], bar_width=50)
    lines = text.splitlines()
    assert lines[0] == f"trace {'ab' * 16}  100.0 ms  4 spans"
    talker = next(line for line in lines if "talker (failed)" in line)
    assert "+    60.0" in talker
    bar = talker[talker.index("60.0") + 6 :]
    assert bar.count("█") == 29
    assert bar.index("◆") == 25
    assert next(line for line in lines if "first packet" in line).split()[2] == "60.0"


def test_nothing_and_instants_can_be_drawn() -> None:
    assert waterfall.render([]) == "(no spans)"
    assert "█" in waterfall.render([span("instant", None, 0, 0)])
    assert "◆" in waterfall.render([span("late event", None, 0, 1, event_ms=99)])


def test_parts_follow_each_other_and_sum_to_the_whole() -> None:
    now = iter([0.0, 0.010, 0.010, 0.030, 0.060, 0.062, 9.0, 0.065])
    clock = FirstPacketClock(lambda: next(now))
    for part in ("prepare", "encoders", "thinker", "talker", "codec"):
        clock.mark(part)
        assert clock.first_packet is None
    clock.mark("prepare")  # a second mark changes nothing and asks no clock
    next(now)
    clock.mark("emit")
    packet = clock.first_packet
    assert packet is not None
    assert packet.total_ms == pytest.approx(65)
    assert list(packet.parts_ms.values()) == pytest.approx([10, 0, 20, 30, 2, 3])
    assert FirstPacket.from_attributes(packet.attributes()) == packet
    assert packet.attributes()[names.FIRST_PACKET_TOTAL] == pytest.approx(65)


def test_a_trace_without_sound_has_no_first_packet() -> None:
    assert waterfall.first_packet(TURN) is None
    assert FirstPacket.from_attributes({"antiphon.first_packet.thinker_ms": "no number"}) is None


CALL = span("call", "turn", 10, 90, kind="client")
ANSWER = span("answer", "call", 11, 89, stage="talker", kind="server")
ROOT = span("turn", None, 0, 100, kind="server")


def test_a_trace_is_finished_when_whole_and_settled() -> None:
    assembly = TraceAssembly(settle_seconds=1, give_up_seconds=60)
    assembly.add([CALL], 0.0)
    assembly.add([ROOT], 0.5)
    assert assembly.take_finished(10.0) == []  # the server's span is still on its way
    assembly.add([ANSWER, ANSWER], 10.0)
    assert assembly.take_finished(10.5) == []
    (trace,) = assembly.take_finished(11.0)
    assert {span.span_id for span in trace} == {"turn", "call", "answer"}
    assert assembly.take_finished(99.0) == []


def test_a_trace_that_stays_incomplete_is_shown_in_the_end() -> None:
    assembly = TraceAssembly(settle_seconds=1, give_up_seconds=6)
    assembly.add([ANSWER], 0.0)
    assert assembly.take_finished(5.9) == []
    assert assembly.take_finished(6.0) == [[ANSWER]]


def test_the_assembly_is_bounded() -> None:
    assembly = TraceAssembly(settle_seconds=0, give_up_seconds=0, max_traces=2, max_spans=3)
    for trace in ("aa", "bb", "cc"):
        assembly.add([span(f"{trace}{index}", None, 0, 1, trace_id=trace) for index in range(5)], 0.0)
    assert [len(trace) for trace in assembly.take_finished(0.0)] == [3, 3]
