"""Live sessions over a real socket before fakes of the stages: orders, echoes, pace, and what is left when one ends."""

import asyncio
import base64
import time
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed

from antiphon.errors import Unavailable
from antiphon.telemetry import tracing
from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.span_records import SpanRing
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, listening
from tests.gateway.realtime.live import Live, heard, live

TEXT = "the cat is black"
SPOKEN_ORDER = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
DELTAS = ("response.output_audio.delta", "response.output_audio_transcript.delta", "response.output_text.delta")


@pytest.fixture
async def client(base_url: str) -> Any:
    async with live(base_url) as opened:
        yield opened


async def test_a_spoken_answer_is_told_in_openais_order(client: Live) -> None:
    await client.say("what is it")
    done = await client.respond()
    created = next(event for event in client.events if event["type"] == "response.created")
    assert [kind for kind in client.since(created) if kind not in DELTAS] == SPOKEN_ORDER
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": TEXT}]
    frames, samples = done["usage"]["output_token_details"]["audio_tokens"], len(heard(client.events, done["id"])) // 2
    assert 0 <= frames * 1920 - samples < 1920
    assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + done["usage"]["output_tokens"]


async def test_a_written_answer(client: Live) -> None:
    await client.say("what is it")
    done = await client.respond(output_modalities=["text"])
    assert done["output"][0]["content"] == [{"type": "output_text", "text": TEXT}]
    deltas = [event["delta"] for event in client.events if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == TEXT
    assert done["audio"] is None


async def test_metadata_comes_back_at_once(client: Live) -> None:
    await client.say("what is it")
    created = await client.ask(
        "response.create", "response.created", response={"metadata": {"client_event_id": "lk_1"}}
    )
    assert created["response"]["metadata"] == {"client_event_id": "lk_1"}


async def test_a_clients_item_ids_are_kept(client: Live) -> None:
    assert (await client.say("second", id="b"))["item"]["id"] == "b"
    await client.send(
        "conversation.item.create",
        item={"type": "message", "id": "a", "role": "user", "content": [{"type": "input_text", "text": "first"}]},
        previous_item_id="root",
    )
    added = await client.until("conversation.item.added")
    assert (added["item"]["id"], added["previous_item_id"]) == ("a", None)


async def test_every_kind_of_item_is_told_back_and_part_of_the_next_prompt(client: Live, fakes: Fakes) -> None:
    await client.say("be brief", role="system")
    await client.say("what is the weather")
    call = {"type": "function_call", "name": "look", "call_id": "c1", "arguments": '{"at": "sky"}'}
    output = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
    for item in (call, output):
        done = await client.ask("conversation.item.create", "conversation.item.done", item=item)
        assert {key: done["item"][key] for key in item} == item
    await client.say("speak up", role="system")
    await client.say("it is sunny", role="assistant")
    done = await client.respond(output_modalities=["text"])
    assert done["status"] == "completed"


async def test_an_answer_beside_the_conversation(client: Live, fakes: Fakes) -> None:
    await client.say("what is it", id="asked")
    reference = {"type": "item_reference", "id": "asked"}
    done = await client.respond(conversation="none", input=[reference], output_modalities=["text"])
    assert done["conversation_id"] is None
    added = [event for event in client.events if event["type"] == "conversation.item.added"]
    assert [event["item"]["id"] for event in added] == ["asked"]


async def test_a_failure_fails_the_response_and_not_the_session(client: Live, fakes: Fakes) -> None:
    fakes.thinker.behaviour.failure = Unavailable("away")
    await client.say("what is it")
    done = await client.respond()
    assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", "unavailable")
    fakes.thinker.behaviour.failure = None
    assert (await client.respond())["status"] == "completed"


async def test_a_defect_says_nothing_about_itself(client: Live, fakes: Fakes) -> None:
    fakes.codec.behaviour.failure = ZeroDivisionError("a secret")  # type: ignore[assignment]
    await client.say("what is it")
    done = await client.respond()
    assert done["status"] == "failed"
    assert "secret" not in str(client.events)


async def test_a_cancelled_response_ends_at_once_and_its_stages_too(client: Live, fakes: Fakes) -> None:
    fakes.talker.behaviour.pause_seconds = 0.05
    fakes.talker.frames_after_text = 1000
    await client.say("what is it")
    await client.ask("response.create", "response.output_audio.delta")
    began = time.monotonic()
    done = await client.ask("response.cancel", "response.done")
    assert time.monotonic() - began < 10, "of the 50 s that it would have spoken"
    assert done["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert done["response"]["usage"]["output_token_details"]["audio_tokens"] > 0
    await fakes.until_closed()
    assert fakes.talker.behaviour.calls_finished == 0


async def test_a_response_stopped_before_its_first_word_tells_what_its_prompt_took(client: Live, fakes: Fakes) -> None:
    fakes.thinker.behaviour.pause_seconds = 1.0
    await client.say("what is it")
    await client.ask("response.create", "response.created")
    async with asyncio.timeout(5):
        while not fakes.thinker.behaviour.received:  # noqa: ASYNC110 - fakes have no event for this
            await asyncio.sleep(0.005)
    usage = (await client.ask("response.cancel", "response.done"))["response"]["usage"]
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] == 0


async def test_a_call_of_a_tool_and_what_it_gave(client: Live, fakes: Fakes, write: Any) -> None:
    fakes.thinker.token_ids = write('<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>')
    tool = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
    await client.update(tools=[tool], output_modalities=["text"])
    await client.say("look at the sky")
    done = await client.respond()
    call = done["output"][-1]
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "look", '{"at": "sky"}')
    kinds = [event["type"] for event in client.events]
    assert kinds.index("conversation.item.added", kinds.index("response.created")) < kinds.index(
        "response.function_call_arguments.done"
    )
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "blue"}
    await client.ask("conversation.item.create", "conversation.item.done", item=output)
    fakes.thinker.token_ids = write("it is blue")
    assert (await client.respond())["output"][0]["content"][0]["text"] == "it is blue"


async def test_what_a_user_sent_can_be_retrieved_while_it_fits_into_a_frame(client: Live) -> None:
    for seconds, is_whole in ((1, True), (30, False)):
        sound = base64.b64encode(bytes(48_000 * seconds)).decode()
        item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": sound}]}
        added = await client.ask("conversation.item.create", "conversation.item.done", item=item)
        found = await client.ask(
            "conversation.item.retrieve", "conversation.item.retrieved", item_id=added["item"]["id"]
        )
        assert (found["item"]["content"][0].get("audio") == sound) is is_whole


async def test_a_user_who_speaks_interrupts(client: Live, fakes: Fakes, spoken_question: Any) -> None:
    fakes.talker.frames_after_text = 10_000
    await client.say("what is it")
    await client.ask("response.create", "response.output_audio.delta")
    await client.speak(*spoken_question)
    started = await client.until("input_audio_buffer.speech_started")
    done = await client.until("response.done")
    assert done["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert done["response"]["output"][0]["status"] == "incomplete"
    assert not [e for e in client.events[client.events.index(started) :] if e["type"] in DELTAS]
    item_id = done["response"]["output"][0]["id"]
    assert (await client.until("conversation.item.truncated"))["item_id"] == item_id
    cut = await client.ask(
        "conversation.item.truncate", "conversation.item.truncated", item_id=item_id, content_index=0, audio_end_ms=0
    )
    assert cut["audio_end_ms"] == 0
    found = await client.ask("conversation.item.retrieve", "conversation.item.retrieved", item_id=item_id)
    assert found["item"]["content"][0]["transcript"] == ""
    too_long = await client.refused("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=60_000)
    assert too_long["param"] == "audio_end_ms"


async def test_how_long_a_user_waits_for_the_first_sound_is_measured(
    client: Live, base_url: str, spoken_question: Any
) -> None:
    await client.say("what is it")
    await client.respond()
    await client.speak(*spoken_question)
    await client.until("input_audio_buffer.speech_stopped")
    await client.until("response.done")
    async with httpx.AsyncClient(base_url=base_url) as http:
        told = (await http.get("/metrics")).text
    assert "antiphon_realtime_turn_latency_seconds_count 1.0" in told
    assert "antiphon_realtime_sessions 1.0" in told


async def test_sound_is_not_sent_much_further_than_it_is_played(
    settings: GatewaySettings, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_REALTIME_AHEAD_SECONDS", "2")
    fakes.talker.frames_after_text = 10_000
    async with listening(create_app(settings, fakes.stages(), metrics=Metrics())) as url, live(url) as client:
        await client.say("what is it")
        began = time.monotonic()
        created = await client.ask("response.create", "response.created")
        while time.monotonic() - began < 2:
            await client.next()
        ahead = len(heard(client.events, created["response"]["id"])) / 48_000 - (time.monotonic() - began)
        # A stage may have given some frames in one piece.
        assert 1 < ahead < 4
        await client.ask("response.cancel", "response.done")
        await fakes.until_closed()


async def test_nothing_is_left_of_a_client_that_hangs_up_in_mid_answer(
    base_url: str, fakes: Fakes, app: FastAPI
) -> None:
    ring = SpanRing()
    traced = tracing.configure("test", ring)
    fakes.talker.behaviour.pause_seconds = 0.05
    fakes.talker.frames_after_text = 1000
    before = asyncio.all_tasks()
    try:
        async with live(base_url) as client:
            await client.say("what is it")
            await client.ask("response.create", "response.output_audio.delta")
            client.socket.transport.abort()
        await fakes.until_closed()
        async with asyncio.timeout(5):
            while ring.open_count or app.state.gate.turns or asyncio.all_tasks() - before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        traced.close()
    spans = {span.name: span for span in ring.spans()}
    response, session = spans["realtime.response"], spans["GET /v1/realtime"]
    assert response.parent_id is None
    assert response.trace_id != session.trace_id
    assert response.attributes["gen_ai.conversation.id"] == session.attributes["gen_ai.conversation.id"]


@pytest.mark.parametrize(("modality", "output_type"), [("audio", "speech"), ("text", "text")])
async def test_a_response_says_what_went_in_and_came_out_sound_included(
    client: Live, modality: str, output_type: str
) -> None:
    """Against what the client is told of the same response."""
    ring = SpanRing()
    traced = tracing.configure("test", ring)
    sound = base64.b64encode(bytes(48_000)).decode()
    item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": sound}]}
    try:
        await client.update(output_modalities=[modality])
        await client.ask("conversation.item.create", "conversation.item.done", item=item)
        done = await client.respond()
    finally:
        traced.close()
    (span,) = (span for span in ring.spans() if span.name == "realtime.response")
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "antiphon",
        "gen_ai.response.id": done["id"],
        "gen_ai.output.type": output_type,
        "gen_ai.usage.input_tokens": done["usage"]["input_tokens"],
        "gen_ai.usage.output_tokens": done["usage"]["output_tokens"],
    }
    assert expected.items() <= span.attributes.items()
    assert done["usage"]["input_token_details"]["audio_tokens"] > 0
    assert (done["usage"]["output_token_details"]["audio_tokens"] > 0) is (output_type == "speech")


async def test_a_session_that_is_too_long_is_told_and_closed(
    settings: GatewaySettings, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_REALTIME_SESSION_SECONDS", "0.2")
    async with listening(create_app(settings, fakes.stages(), metrics=Metrics())) as url, live(url) as client:
        assert (await client.until("error"))["error"]["code"] == "session_expired"
        with pytest.raises(ConnectionClosed) as closed:
            await client.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000


async def test_a_server_that_stops_lets_the_answer_end_and_says_goodbye(
    app: FastAPI, base_url: str, fakes: Fakes
) -> None:
    fakes.talker.behaviour.pause_seconds = 0.02
    async with live(base_url) as client:
        await client.say("what is it")
        await client.ask("response.create", "response.created")
        closing = asyncio.create_task(app.state.gate.close(10))
        assert (await client.until("response.done"))["response"]["status"] == "completed"
        with pytest.raises(ConnectionClosed) as closed:
            await client.next()
        await closing
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


async def test_an_answer_that_outlasts_the_servers_time_ends_with_its_session(
    app: FastAPI, base_url: str, fakes: Fakes
) -> None:
    fakes.talker.behaviour.pause_seconds = 30
    async with live(base_url) as client:
        await client.say("what is it")
        await client.ask("response.create", "response.created")
        closing = asyncio.create_task(app.state.gate.close(0.1))
        with pytest.raises(ConnectionClosed) as closed:
            await client.until("response.done")
        await closing
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
            1012,
            "This server is stopping. Connect again, to another one.",
        )
    await fakes.until_closed()


async def test_one_session_too_many_is_refused(
    settings: GatewaySettings, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    from websockets.exceptions import InvalidStatus

    monkeypatch.setenv("ANTIPHON_REALTIME_CONCURRENT_SESSIONS", "1")
    async with listening(create_app(settings, fakes.stages(), metrics=Metrics())) as url:
        async with live(url):
            with pytest.raises(InvalidStatus) as refused:
                async with live(url):
                    pass
            assert refused.value.response.status_code == 503
        await asyncio.sleep(0.1)
        async with live(url):
            pass
