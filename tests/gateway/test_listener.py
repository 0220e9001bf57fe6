"""What the gateway tells of its listener: for how long he had nothing to play."""

import httpx
import pytest

from antiphon.telemetry.metrics import Metrics
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, spoken

SILENT = "antiphon_playback_silent_seconds"


async def silent_seconds(settings: GatewaySettings, fakes: Fakes, *, stream: bool) -> tuple[float, float]:
    """Of one spoken answer: how many were observed, and their sum."""
    metrics = Metrics()
    app = create_app(settings, fakes.stages(), metrics=metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        assert (await client.post("/v1/chat/completions", json=spoken(stream=stream))).status_code == 200
    count, total = (metrics.registry.get_sample_value(f"{SILENT}_{kind}") for kind in ("count", "sum"))
    assert count is not None
    assert total is not None
    return count, total


@pytest.mark.parametrize(("pause_seconds", "is_silent"), [(0.0, False), (0.2, True)])
async def test_a_stream_that_is_slower_than_its_listener_tells_his_silence(
    pause_seconds: float, is_silent: bool, settings: GatewaySettings, fakes: Fakes
) -> None:
    fakes.codec.behaviour.pause_seconds = pause_seconds
    count, total = await silent_seconds(settings, fakes, stream=True)
    assert count == 1
    assert (total > 0.1) == is_silent


async def test_a_whole_answer_has_no_listener_yet(settings: GatewaySettings, fakes: Fakes) -> None:
    assert await silent_seconds(settings, fakes, stream=False) == (0, 0.0)
