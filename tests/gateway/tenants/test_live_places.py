"""A live session and the places of its tenant: who may have one turn at a time may talk, and be written down."""

import base64
from typing import Any

import numpy as np
import pytest

from antiphon.tenancy.caller import TenantLimits
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes
from tests.gateway.realtime.live import live, pcm
from tests.gateway.tenants.conftest import TenantGateway


@pytest.fixture
def settings(settings: GatewaySettings) -> GatewaySettings:
    return settings.model_copy(update={"concurrent_turns": 1})


async def test_writing_down_what_was_said_takes_no_place_from_the_answer(gateway: TenantGateway, fakes: Fakes) -> None:
    fakes.thinker.behaviour.pause_seconds = 0.05
    key = await gateway.enrol("acme", TenantLimits(concurrent_turns=1))
    hears: dict[str, Any] = {"transcription": {"model": "gpt-4o-mini-transcribe"}, "turn_detection": None}
    sound = base64.b64encode(pcm(np.zeros(24_000, np.float32))).decode()
    async with live(gateway.url, additional_headers={"authorization": f"Bearer {key}"}) as client:
        await client.update(audio={"input": hears}, output_modalities=["text"])
        await client.send("input_audio_buffer.append", audio=sound)
        await client.send("input_audio_buffer.commit")
        await client.until("conversation.item.done")
        done = await client.respond()
        assert done["status"] == "completed", done["status_details"]
        kind = "conversation.item.input_audio_transcription"
        if not any(event["type"].startswith(kind) for event in client.events):
            await client.until(f"{kind}.completed")
        assert [e["type"] for e in client.events if e["type"].startswith(kind)] == [f"{kind}.completed"]
    records = await gateway.records("acme")
    assert len(records) == 2, "both are on the account"
