"""What the gateway has to do with media that come again: the encoders are told whose they are, and it counts them."""

import base64
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import httpx

from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.caller import ANONYMOUS_TENANT
from antiphon.tenancy.identity import cache_salt
from antiphon.v1.encoder_service_pb2 import EncodeRequest, EncodeResponse
from antiphon.wire.fakes import FakeEncoders
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, spoken

SOUND = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFF").decode(), "format": "wav"}}
ROWS = ("computed", "cached")


async def test_the_encoders_are_told_the_salt_of_the_tenant(client: httpx.AsyncClient, fakes: Fakes) -> None:
    messages = [{"role": "user", "content": [SOUND]}]
    response = await client.post("/v1/chat/completions", json=spoken(messages=messages))
    assert response.status_code == 200, response.text
    (start,) = [request.start for request in fakes.encoders.behaviour.received if request.HasField("start")]
    assert start.cache_salt == cache_salt(b"", ANONYMOUS_TENANT)


class RememberingEncoders(FakeEncoders):
    """Says of one medium that it was encoded before."""

    async def encode(
        self, requests: AsyncIterator[EncodeRequest], *, timeout_seconds: float | None = None
    ) -> AsyncGenerator[EncodeResponse, None]:
        async for response in super().encode(requests, timeout_seconds=timeout_seconds):
            if response.HasField("end"):
                response.end.cached_items = 1
            yield response


async def test_media_are_counted_by_whether_they_were_computed(settings: GatewaySettings, fakes: Fakes) -> None:
    metrics = Metrics()
    app = create_app(settings, replace(fakes.stages(), encoders=RememberingEncoders()), metrics=metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        messages = [{"role": "user", "content": [SOUND, SOUND, SOUND]}]
        assert (await client.post("/v1/chat/completions", json=spoken(messages=messages))).status_code == 200
    counted = {rows: metrics.registry.get_sample_value("antiphon_media_total", {"rows": rows}) for rows in ROWS}
    assert counted == {"computed": 2.0, "cached": 1.0}
