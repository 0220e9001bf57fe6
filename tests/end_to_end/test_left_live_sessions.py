"""Live answers that nobody hears any more, by a client that hangs up or a user who interrupts: their pages are free."""

import asyncio
from pathlib import Path

import pytest
import soundfile

from antiphon.hosting.service import ServiceLoad
from tests.end_to_end.platform import IDLE_SECONDS, Platform
from tests.gateway.realtime.live import Live, live, silence


async def begin_long_answer(client: Live) -> None:
    await client.say("Count to twelve.")
    await client.ask("response.create", "response.output_audio.delta")


def busy_stages(platform: Platform) -> int:
    """That run, wait or hold a page."""
    return sum(service.load() != ServiceLoad() for service in platform.parts.services)


async def hang_up_in_mid_answer(platform: Platform) -> None:
    async with live(platform.parts.base_url, query=f"model={platform.checkpoint.name}") as client:
        await begin_long_answer(client)
        assert busy_stages(platform) > 0
        client.socket.transport.abort()


async def interrupt(platform: Platform, recording: Path) -> None:
    samples, rate_hz = soundfile.read(recording, dtype="float32")
    async with live(platform.parts.base_url, query=f"model={platform.checkpoint.name}") as client:
        detection = {"type": "server_vad", "create_response": False}
        await client.update(audio={"input": {"turn_detection": detection}})
        await begin_long_answer(client)
        await client.speak(silence(0.2, rate_hz), rate_hz)
        await client.speak(samples, rate_hz)
        done = await client.until("response.done")
        assert done["response"]["status_details"]["reason"] == "turn_detected"
        await until_stages_are_idle(platform)


async def until_stages_are_idle(platform: Platform) -> None:
    """As `Platform.wait_until_idle`, while the session itself is still open."""
    async with asyncio.timeout(IDLE_SECONDS):
        while busy_stages(platform):  # noqa: ASYNC110 - loads have no event
            await asyncio.sleep(0.01)


@pytest.mark.slow
def test_a_client_that_hangs_up_leaves_no_page_behind(nano_platform: Platform) -> None:
    nano_platform.wait_until_idle()
    asyncio.run(hang_up_in_mid_answer(nano_platform))
    nano_platform.wait_until_idle()


@pytest.mark.slow
def test_a_user_who_interrupts_frees_every_page_at_once(nano_platform: Platform, nano: Path) -> None:
    nano_platform.wait_until_idle()
    asyncio.run(interrupt(nano_platform, nano / "examples" / "question.wav"))
    nano_platform.wait_until_idle()
