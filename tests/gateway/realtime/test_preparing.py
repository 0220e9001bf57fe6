"""What live sessions have prepared, over a real socket before fakes of the stages: what, for whom, and when not."""

import asyncio
import base64
from collections.abc import Callable

import pytest
from fastapi import FastAPI

from antiphon.errors import Unavailable
from antiphon.telemetry.metrics import Metrics
from antiphon.v1.generation_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE
from antiphon.v1.thinker_service_pb2 import GenerateStart
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, listening
from tests.gateway.realtime.live import Live, live

SECOND = base64.b64encode(bytes(48_000)).decode()


def starts(fakes: Fakes) -> list[GenerateStart]:
    return [request.start for request in fakes.thinker.behaviour.received if request.HasField("start")]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - fakes have no event for this
            await asyncio.sleep(0.005)


async def by_hand(client: Live) -> None:
    """The user himself says when he has ended."""
    await client.update(audio={"input": {"turn_detection": None}})


async def test_instructions_are_read_before_anything_is_said(base_url: str, fakes: Fakes) -> None:
    async with live(base_url) as client:
        await client.update(instructions="be brief")
        await until(lambda: fakes.talker.behaviour.calls_finished == 1)
    (start,) = starts(fakes)
    assert start.prefill_only
    assert start.scheduling.priority == PRIORITY_BATCH
    assert start.cache_salt
    await fakes.until_closed()


async def test_a_written_answer_has_no_use_for_a_prepared_talker(base_url: str, fakes: Fakes) -> None:
    async with live(base_url) as client:
        await client.update(instructions="be brief", output_modalities=["text"])
        await until(lambda: fakes.thinker.behaviour.calls_finished == 1)
    assert fakes.talker.behaviour.calls_begun == 0


async def test_sound_is_read_by_windows_and_the_answer_is_asked_for_as_ever(base_url: str, fakes: Fakes) -> None:
    async with live(base_url) as client:
        await by_hand(client)
        for second in range(18):
            await client.send("input_audio_buffer.append", audio=SECOND)
            windows = (second + 0.9) // 8
            await until(lambda due=windows: fakes.talker.behaviour.calls_finished >= due)  # type: ignore[misc]
        await client.ask("input_audio_buffer.commit", "conversation.item.done")
        assert (await client.respond())["status"] == "completed"
        first, second, answer = starts(fakes)[:3]
    assert first.prefill_only
    assert second.prefill_only
    assert not answer.prefill_only
    assert answer.scheduling.priority == PRIORITY_INTERACTIVE
    sizes = [r.start.items[0].byte_count for r in fakes.encoders.behaviour.received if r.HasField("start")]
    assert sizes[:3] == [44 + round(seconds * 48_000) for seconds in (8.1, 16.1, 18)]


async def test_an_answer_stops_what_is_being_prepared(base_url: str, fakes: Fakes) -> None:
    async with live(base_url) as client:
        fakes.thinker.behaviour.pause_seconds = 60
        await client.update(instructions="be brief")
        await until(lambda: fakes.thinker.behaviour.open_calls == 1)
        fakes.thinker.behaviour.pause_seconds = 0
        await client.say("what is it")
        assert (await client.respond())["status"] == "completed"
        assert starts(fakes)[0].prefill_only
        assert fakes.thinker.behaviour.calls_begun - fakes.thinker.behaviour.calls_finished >= 1


async def test_what_fails_is_nobodys_business(base_url: str, fakes: Fakes) -> None:
    async with live(base_url) as client:
        fakes.thinker.behaviour.failure = Unavailable("away")
        await client.update(instructions="be brief")
        await until(lambda: fakes.thinker.behaviour.calls_begun == 1)
        await fakes.until_closed()
        fakes.thinker.behaviour.failure = None
        await client.say("what is it")
        assert (await client.respond())["status"] == "completed"
        assert not [event for event in client.events if event["type"] == "error"]


async def test_where_every_place_is_taken_or_the_server_stops_nothing_is_begun(
    settings: GatewaySettings, fakes: Fakes
) -> None:
    settings = settings.model_copy(update={"concurrent_turns": 1})
    app: FastAPI = create_app(settings, fakes.stages(), metrics=Metrics())
    fakes.talker.behaviour.pause_seconds, fakes.talker.frames_after_text = 0.02, 10_000
    async with listening(app) as url, live(url) as one, live(url) as other:
        await one.say("what is it")
        await one.ask("response.create", "response.output_audio.delta")
        begun = fakes.thinker.behaviour.calls_begun
        await other.update(instructions="be brief")
        await other.say("and that")
        await asyncio.sleep(0.1)
        assert fakes.thinker.behaviour.calls_begun == begun
        app.state.gate.is_closed = True
        assert not app.state.gate.has_room_ahead()


@pytest.mark.parametrize(("variable", "begun"), [("true", 1), ("false", 0)])
async def test_it_can_be_switched_off(
    settings: GatewaySettings, fakes: Fakes, monkeypatch: pytest.MonkeyPatch, variable: str, begun: int
) -> None:
    monkeypatch.setenv("ANTIPHON_REALTIME_PREPARES", variable)
    async with listening(create_app(settings, fakes.stages(), metrics=Metrics())) as url, live(url) as client:
        await client.update(instructions="be brief")
        await asyncio.sleep(0.1)
    assert fakes.thinker.behaviour.calls_begun == begun
