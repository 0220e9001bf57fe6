"""What operators see: health, metrics, traces; and that nothing of what users say is in them."""

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping

import httpx
import pytest
from fastapi import FastAPI

from antiphon.errors import Unavailable
from antiphon.telemetry import names, tracing
from antiphon.telemetry.first_packet import FirstPacket
from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.names import StageName
from antiphon.telemetry.span_records import SpanRecord, SpanRing
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, body, spoken


@pytest.fixture
def spans() -> Iterator[SpanRing]:
    ring = SpanRing()
    configured = tracing.configure("antiphon-gateway", ring)
    yield ring
    configured.close()


def a_traceparent() -> tuple[str, str]:
    trace_id = secrets.token_hex(16)
    return trace_id, f"00-{trace_id}-{secrets.token_hex(8)}-01"


async def root_of(client: httpx.AsyncClient, spans: SpanRing, request: dict[str, object]) -> SpanRecord:
    trace_id, traceparent = a_traceparent()
    await client.post("/v1/chat/completions", json=request, headers={"traceparent": traceparent})
    (root,) = [span for span in spans.spans(trace_id) if span.parent_id == traceparent.split("-")[2]]
    return root


@pytest.mark.parametrize("path", ["/health", "/healthz"])
async def test_it_lives(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_it_is_ready_when_every_stage_is(settings: GatewaySettings, fakes: Fakes) -> None:
    stages: dict[StageName, bool] = {"thinker": True, "talker": False}

    async def probe() -> Mapping[StageName, bool]:
        if not stages:
            raise Unavailable("no directory")
        return stages

    app = create_app(settings, fakes.stages(), probe, Metrics())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        response = await client.get("/readyz")
        assert (response.status_code, response.json()) == (503, {"status": "not_ready", "stages": stages})
        stages["talker"] = True
        response = await client.get("/readyz")
        assert (response.status_code, response.json()) == (200, {"status": "ready", "stages": stages})
        stages.clear()
        assert (await client.get("/readyz")).status_code == 503
        stages["thinker"] = True
        await app.state.gate.close(drain_seconds=0)
        response = await client.get("/readyz")
        assert (response.status_code, response.json()["status"]) == (503, "draining")


async def test_a_probe_that_hangs_is_not_ready(
    settings: GatewaySettings, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.operators.health._PROBE_SECONDS", 0.02)

    async def probe() -> Mapping[StageName, bool]:
        await asyncio.sleep(30)
        return {}

    app = create_app(settings, fakes.stages(), probe, Metrics())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        assert (await client.get("/readyz")).status_code == 503


async def test_metrics_count_requests_tokens_and_first_sound(client: httpx.AsyncClient) -> None:
    await client.post("/v1/chat/completions", json=spoken(stream=True))
    await client.post("/v1/chat/completions", json={**body(), "model": "x"})
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert f'{names.METRIC_REQUESTS}_total{{stage="gateway",status="200"}} 1.0' in response.text
    assert f'{names.METRIC_REQUESTS}_total{{stage="gateway",status="404"}} 1.0' in response.text
    assert f"{names.METRIC_TURNS_ACTIVE} 0.0" in response.text
    assert f"{names.METRIC_FIRST_AUDIO}_count 1.0" in response.text
    assert f'{names.METRIC_TOKENS}_total{{direction="output",modality="audio"}}' in response.text


async def test_a_turn_is_one_span_below_the_callers(client: httpx.AsyncClient, spans: SpanRing) -> None:
    root = await root_of(client, spans, spoken(stream=True, max_tokens=50))
    assert root.name == "POST /v1/chat/completions"
    expected = {
        names.HTTP_REQUEST_METHOD: "POST",
        names.HTTP_ROUTE: "/v1/chat/completions",
        names.HTTP_RESPONSE_STATUS_CODE: 200,
        names.STAGE: "gateway",
        names.GEN_AI_OPERATION_NAME: "chat",
        names.GEN_AI_REQUEST_MODEL: "antiphon-nano",
        names.GEN_AI_REQUEST_MAX_TOKENS: 50,
        names.GEN_AI_OUTPUT_TYPE: "speech",
    }
    assert expected.items() <= root.attributes.items()
    assert root.attributes[names.GEN_AI_USAGE_INPUT_TOKENS]
    assert str(root.attributes[names.REQUEST_ID]).startswith("req_")
    assert not root.failed


@pytest.mark.parametrize(("output_type", "body_of"), [("speech", spoken), ("text", body)])
async def test_a_chat_says_what_went_in_and_came_out_sound_included(
    client: httpx.AsyncClient, spans: SpanRing, output_type: str, body_of: Callable[..., dict[str, object]]
) -> None:
    """Against what the client is told of the same answer."""
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    answer = (await client.post("/v1/chat/completions", json=body_of([part]))).json()
    (root,) = (span for span in spans.spans() if span.name == "POST /v1/chat/completions")
    usage = answer["usage"]
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "antiphon",
        "gen_ai.response.id": answer["id"],
        "gen_ai.output.type": output_type,
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
    }
    assert expected.items() <= root.attributes.items()
    assert "stop" in str(root.attributes["gen_ai.response.finish_reasons"])
    assert usage["prompt_tokens_details"]["audio_tokens"] > 0
    assert (usage["completion_tokens_details"]["audio_tokens"] > 0) is (output_type == "speech")


async def test_events_come_in_order_and_parts_sum_to_the_first_packet(
    client: httpx.AsyncClient, spans: SpanRing, fakes: Fakes
) -> None:
    for fake in fakes.all:
        fake.behaviour.pause_seconds = 0.01
    part = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    root = await root_of(client, spans, spoken([part], stream=True))
    events = [names.EVENT_FIRST_TOKEN, names.EVENT_FIRST_FRAME, names.EVENT_FIRST_PCM, names.EVENT_FIRST_BYTE]
    assert [event.name for event in root.events] == events
    packet = FirstPacket.from_attributes(root.attributes)
    assert packet is not None
    assert packet.total_ms == pytest.approx(float(root.attributes[names.FIRST_PACKET_TOTAL]))
    assert packet.total_ms == pytest.approx((root.events[-1].time_ns - root.start_ns) / 1e6, rel=0.02)
    assert all(packet.parts_ms[stage] >= 9 for stage in ("encoders", "thinker", "talker", "codec"))


async def test_a_refusal_keeps_its_status_in_the_span(client: httpx.AsyncClient, spans: SpanRing) -> None:
    root = await root_of(client, spans, body(n=2))
    assert root.attributes[names.HTTP_RESPONSE_STATUS_CODE] == 400


async def test_probes_leave_no_spans(client: httpx.AsyncClient, spans: SpanRing) -> None:
    trace_id, traceparent = a_traceparent()
    for path in ("/health", "/healthz", "/readyz", "/metrics"):
        response = await client.get(path, headers={"traceparent": traceparent})
        assert response.headers["x-request-id"]
    assert spans.spans(trace_id) == []


async def test_paths_and_methods_that_anyone_invents_name_no_span(client: httpx.AsyncClient, spans: SpanRing) -> None:
    trace_id, traceparent = a_traceparent()
    await client.request("BREW", "/secret-pot", headers={"traceparent": traceparent})
    (span,) = spans.spans(trace_id)
    assert span.name == "_OTHER"
    assert "secret" not in str(span)


@pytest.mark.parametrize("failing", ["", "encoders", "thinker", "codec"])
async def test_nothing_that_was_said_reaches_logs_or_spans(
    client: httpx.AsyncClient,
    spans: SpanRing,
    fakes: Fakes,
    caplog: pytest.LogCaptureFixture,
    write: Callable[[str], tuple[int, ...]],
    failing: str,
) -> None:
    caplog.set_level(logging.INFO)
    fakes.thinker.token_ids = write("sesame")
    if failing:
        getattr(fakes, failing).behaviour.failure = ValueError("sesame")
    sound = {"type": "input_audio", "input_audio": {"data": "sesame==", "format": "wav"}}
    requests = [spoken(["sesame", sound][index % 2 :], stream=index > 1) for index in range(4)]
    requests += [
        spoken([sound, {"type": "text", "text": "sesame"}], stream=stream, stop=["sesame"]) for stream in (False, True)
    ]
    requests += [spoken(audio={"voice": "sesame"}), {**body(), "model": "sesame"}, body(temperature="sesame")]
    for request in requests:
        await client.post("/v1/chat/completions", json=request)
    told = [json.dumps([span.name, dict(span.attributes)], default=str) for span in spans.spans()]
    assert told
    assert "sesame" not in "".join(told)
    assert all("sesame" not in record.getMessage() for record in caplog.records)


async def test_the_clients_own_headers_do_not_name_the_request(client: httpx.AsyncClient, app: FastAPI) -> None:
    response = await client.get("/v1/models", headers={"x-request-id": "mine"})
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["openai-version"] == "2020-10-01"
