"""The whole platform in one process, as `antiphon ask` and `antiphon serve` use it."""

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from antiphon.telemetry import names, waterfall
from services.embedded import EmbeddedSettings, running_platform

BODY = {
    "model": "antiphon-nano",
    "messages": [{"role": "user", "content": "What sound does a cow make?"}],
    "modalities": ["text", "audio"],
    "audio": {"voice": "ethan", "format": "pcm16"},
    "stream": True,
}


@pytest.mark.slow
async def test_a_turn_leaves_one_whole_trace_and_nothing_open(nano: Path) -> None:
    async with running_platform(EmbeddedSettings(nano)) as platform:
        async with httpx.AsyncClient(base_url=platform.base_url, timeout=60) as client:
            answer = await client.post("/v1/chat/completions", json=BODY)
            assert answer.text.rstrip().endswith("data: [DONE]")
            assert (await client.get("/readyz")).json()["status"] == "ready"
            metrics = (await client.get("/metrics")).text
        await asyncio.sleep(0.1)
        spans = platform.spans.spans()
        assert platform.spans.open_count == 0
    root = next(span for span in spans if span.name == "POST /v1/chat/completions")
    turn = [span for span in spans if span.trace_id == root.trace_id]
    assert {span.stage for span in turn} == {"gateway", "thinker", "talker", "codec"}
    packet = waterfall.first_packet(turn)
    assert packet is not None
    byte = next(event for event in root.events if event.name == names.EVENT_FIRST_BYTE)
    assert packet.total_ms == pytest.approx((byte.time_ns - root.start_ns) / 1e6, rel=0.02, abs=1.0)
    for stage in ("thinker", "talker", "codec"):
        assert f'antiphon_stage_total_seconds_count{{stage="{stage}"}}' in metrics


@pytest.mark.slow
def test_nothing_of_the_reference_is_loaded() -> None:
    """transformers is for tests; importing it would cost seconds and hundreds of megabytes."""
    script = (
        "import services.embedded, sys; from pathlib import Path\n"
        "services.embedded._parts(services.embedded.EmbeddedSettings(Path('models/nano')))\n"
        "print(sorted({'transformers', 'torchvision', 'ray', 'pandas'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
