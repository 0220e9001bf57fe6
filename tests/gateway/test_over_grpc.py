"""The gateway before stages that answer over real gRPC: turns, one trace, hanging up, stages that are away."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI

from antiphon.telemetry import tracing
from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.names import STAGES
from antiphon.telemetry.span_records import SpanRing
from antiphon.wire import methods
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import MODEL, Fakes, assert_envelope, body, listening, over_grpc, spoken
from tests.gateway.test_disconnect import hang_up, send, until_open

SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}


@pytest.fixture
def spans() -> Iterator[SpanRing]:
    ring = SpanRing()
    configured = tracing.configure("antiphon", ring)
    yield ring
    configured.close()


@pytest.fixture
async def base_url(settings: GatewaySettings, fakes: Fakes, tmp_path: Path) -> AsyncIterator[str]:
    async with (
        over_grpc(fakes, tmp_path) as caller,
        listening(create_app(settings, caller.stages(), caller.readiness, Metrics())) as url,
    ):
        yield url


async def until_all_ended(spans: SpanRing) -> None:
    async with asyncio.timeout(5):
        while spans.open_count:  # noqa: ASYNC110 - spans have no event for this
            await asyncio.sleep(0.01)


async def test_a_turn_over_grpc(base_url: str, fakes: Fakes) -> None:
    async with AsyncOpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0) as sdk:
        answer = await sdk.chat.completions.create(
            model=MODEL,
            modalities=["text", "audio"],
            audio={"voice": "ethan", "format": "pcm16"},
            messages=[{"role": "user", "content": [SOUND, {"type": "text", "text": "what"}]}],  # type: ignore[list-item]
        )
    assert answer.choices[0].message.audio is not None
    assert answer.choices[0].message.audio.transcript == "the cat is black"
    assert fakes.open_calls == 0


async def test_it_is_ready(base_url: str) -> None:
    async with httpx.AsyncClient(base_url=base_url) as client:
        response = await client.get("/readyz")
    assert response.json() == {
        "status": "ready",
        "stages": {"encoders": True, "thinker": True, "talker": True, "codec": True},
    }


async def test_one_trace_holds_every_call(base_url: str, spans: SpanRing) -> None:
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    async with httpx.AsyncClient(base_url=base_url) as client:
        await client.post("/v1/chat/completions", json=spoken([SOUND], stream=True), headers=headers)
    await until_all_ended(spans)
    found = spans.spans(trace_id)
    (root,) = [span for span in found if span.name == "POST /v1/chat/completions"]
    calls = {method.full_name for method in (methods.ENCODE, methods.GENERATE, methods.SPEAK, methods.DECODE)}
    below = [span for span in found if span.parent_id == root.span_id]
    assert {span.name for span in below} == calls
    assert len([span for span in found if span.name in calls]) == 2 * len(calls)
    assert not any(span.failed for span in found)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stage", ["encoders", "thinker", "talker", "codec"])
async def test_hanging_up_reaches_every_stage(
    base_url: str, fakes: Fakes, spans: SpanRing, stage: str, stream: bool
) -> None:
    getattr(fakes, stage).behaviour.pause_seconds = 30
    _, writer = await send(base_url, spoken([SOUND], stream=stream))
    await until_open(fakes, 1)
    await asyncio.sleep(0.05)
    await hang_up(writer)
    await fakes.until_closed()
    await until_all_ended(spans)


async def test_stages_that_are_away(settings: GatewaySettings, tmp_path: Path) -> None:
    directory = StaticDirectory({stage: [f"unix:{tmp_path}/nobody.sock"] for stage in STAGES})
    async with (
        StageCaller(directory) as caller,
        listening(create_app(settings, caller.stages(), caller.readiness, Metrics())) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        assert (await client.get("/readyz")).status_code == 503
        response = await client.post("/v1/chat/completions", json=body(stream=True))
        assert_envelope(response, 503)
        assert json.loads(response.headers["retry-after"]) >= 1
