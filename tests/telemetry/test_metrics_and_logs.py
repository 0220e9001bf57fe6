"""Metrics as a scraper reads them, and logs that say when and where but never what a user said."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from antiphon.telemetry import logging as antiphon_logging
from antiphon.telemetry import names, tracing
from antiphon.telemetry.first_packet import FirstPacket
from antiphon.telemetry.metrics import Metrics, process_metrics
from antiphon.telemetry.span_records import SpanRing


def test_stage_times_arrive_in_seconds_under_their_names() -> None:
    metrics = Metrics()
    metrics.observe_stage("talker", queue_ms=2, first_output_ms=30, total_ms=900)
    metrics.count_request("talker", "OK")
    metrics.count_tokens("input", "audio", 13)
    metrics.observe_first_packet(FirstPacket({"thinker": 100.0, "talker": 50.0}))
    metrics.turns_active.inc()
    families = {family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())}
    sums = {
        sample.name: sample.value
        for name in (names.METRIC_STAGE_QUEUE, names.METRIC_STAGE_FIRST_OUTPUT, names.METRIC_STAGE_TOTAL)
        for sample in families[name].samples
        if sample.name.endswith("_sum")
    }
    assert sums == pytest.approx(
        {
            f"{names.METRIC_STAGE_QUEUE}_sum": 0.002,
            f"{names.METRIC_STAGE_FIRST_OUTPUT}_sum": 0.03,
            f"{names.METRIC_STAGE_TOTAL}_sum": 0.9,
        }
    )
    assert metrics.registry.get_sample_value(f"{names.METRIC_FIRST_AUDIO}_sum") == pytest.approx(0.15)
    assert metrics.registry.get_sample_value(names.METRIC_TURNS_ACTIVE) == 1
    assert {family for family in families if family.startswith("antiphon_")} >= {"antiphon_requests", "antiphon_tokens"}


def test_a_process_has_one_set_of_metrics() -> None:
    assert process_metrics() is process_metrics()


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_line_is_json_with_its_trace(out: io.StringIO) -> None:
    ring = SpanRing()
    traced = tracing.configure("antiphon-test", ring)
    antiphon_logging.configure("INFO", out)
    with tracing.span("turn"):
        logging.getLogger("antiphon.x").info("The turn is over.", extra={"frames": 7})
        trace_id = tracing.current_trace_id()
    traced.close()
    line = json.loads(out.getvalue())
    assert line["message"] == "The turn is over."
    assert (line["trace_id"], line["frames"], line["level"], line["logger"]) == (trace_id, 7, "INFO", "antiphon.x")
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize("as_json", [True, False])
def test_an_exception_keeps_its_frames_but_not_its_text(out: io.StringIO, as_json: bool) -> None:
    antiphon_logging.configure("INFO", out, as_json=as_json)
    try:
        raise KeyError("what the user said")
    except KeyError:
        logging.getLogger("antiphon.x").exception("It failed.")
    assert "KeyError" in out.getvalue()
    assert "test_an_exception_keeps_its_frames" in out.getvalue()
    assert "what the user said" not in out.getvalue()


def test_below_info_the_whole_exception_is_shown(out: io.StringIO) -> None:
    antiphon_logging.configure("DEBUG", out)
    logging.getLogger("antiphon.x").error("It failed.", exc_info=ValueError("shape (2, 3)"))
    assert "shape (2, 3)" in out.getvalue()
