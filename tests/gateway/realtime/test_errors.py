"""What a client does wrong is told with the exact code that clients look for, and its session goes on."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.gateway.conftest import MODEL, Fakes, assert_envelope
from tests.gateway.realtime.live import Live, live


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[Live]:
    async with live(base_url) as opened:
        yield opened


A_MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


@pytest.mark.parametrize(
    ("kind", "fields", "code", "param"),
    [
        ("conversation.item.retrieve", {"item_id": "none"}, "item_retrieve_invalid_item_id", "item_id"),
        ("conversation.item.delete", {"item_id": "none"}, "item_delete_invalid_item_id", "item_id"),
        (
            "conversation.item.truncate",
            {"item_id": "none", "content_index": 0, "audio_end_ms": 0},
            "item_truncate_invalid_item_id",
            "item_id",
        ),
        (
            "conversation.item.create",
            {"item": A_MESSAGE, "previous_item_id": "none"},
            "item_create_invalid_previous_item_id",
            "previous_item_id",
        ),
        ("conversation.item.create", {}, "missing_required_parameter", "item"),
        ("conversation.item.create", {"item": {**A_MESSAGE, "role": "pope"}}, "invalid_value", "item.role"),
        ("conversation.item.create", {"item": {"type": "message", "role": "user"}}, None, "item.content"),
        (
            "conversation.item.create",
            {"item": {**A_MESSAGE, "content": [{"type": "input_audio", "audio": "!"}]}},
            "invalid_base64",
            "item.content[0].audio",
        ),
        (
            "conversation.item.create",
            {"item": {**A_MESSAGE, "content": [{"type": "input_image", "image_url": "http://a/b.png"}]}},
            "remote_media_refused",
            "item.content[0].image_url",
        ),
        ("input_audio_buffer.commit", {}, "input_audio_buffer_commit_empty", None),
        ("input_audio_buffer.append", {"audio": "AAAA"}, None, "audio"),
        ("input_audio_buffer.append", {"audio": 7}, "invalid_type", "audio"),
        ("response.cancel", {}, "response_cancel_not_active", None),
        ("response.cancel", {"response_id": "none"}, "response_cancel_not_active", "response_id"),
        ("response.create", {"response": {"output_modalities": ["text", "audio"]}}, None, "response.output_modalities"),
        (
            "response.create",
            {"response": {"audio": {"output": {"voice": "nobody"}}}},
            None,
            "response.audio.output.voice",
        ),
        (
            "response.create",
            {"response": {"input": [{"type": "item_reference", "id": "x"}]}},
            None,
            "response.input[0].id",
        ),
        ("response.create", {"response": {"tool_choice": "required"}}, None, "tool_choice"),
        ("session.update", {"session": {}}, "missing_required_parameter", "session.type"),
        ("session.update", {"session": {"type": "transcription"}}, None, "session.type"),
        ("session.update", {"session": {"type": "realtime", "model": "gpt-9"}}, "model_not_found", "model"),
        (
            "session.update",
            {
                "session": {
                    "type": "realtime",
                    "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}},
                }
            },
            None,
            "session.audio.input.turn_detection.threshold",
        ),
        (
            "session.update",
            {"session": {"type": "realtime", "audio": {"output": {"speed": 1.5}}}},
            "unsupported_value",
            "session.audio.output.speed",
        ),
        ("output_audio_buffer.clear", {}, None, "type"),
        ("conversation.item.invent", {}, "invalid_value", "type"),
    ],
)
async def test_each_mistake_has_its_code(
    client: Live, kind: str, fields: dict[str, Any], code: str | None, param: str | None
) -> None:
    error = await client.refused(kind, **fields)
    assert error["type"] == ("invalid_request_error")
    assert error["code"] == (code or error["code"])
    assert error["param"] == param
    assert (await client.say("still here"))["item"]["status"] == "completed"


async def test_cancelling_nothing_is_said_in_the_words_that_clients_ignore(client: Live) -> None:
    assert (await client.refused("response.cancel"))["message"].startswith("Cancellation failed")


async def test_an_id_is_given_once(client: Live) -> None:
    await client.say("hello", id="chosen")
    again = await client.refused("conversation.item.create", item={**A_MESSAGE, "id": "chosen"})
    assert again["code"] == "item_create_duplicate_item_id"


async def test_a_conversation_has_one_active_response(client: Live, fakes: Fakes) -> None:
    fakes.talker.behaviour.pause_seconds = 0.05
    await client.say("hello")
    await client.ask("response.create", "response.created")
    error = await client.refused("response.create")
    assert error["code"] == "conversation_already_has_active_response"
    done = await client.until("response.done")
    assert done["response"]["status"] == "completed"


@pytest.mark.parametrize(
    "frame", ["{", "7", "[]", '"a"', "null", '{"type": 5}', "{}", b"\xff\x00", '{"type":"response.create",']
)
async def test_what_is_no_event_is_answered_and_the_session_goes_on(client: Live, frame: str | bytes) -> None:
    await client.socket.send(frame)
    error = (await client.until("error"))["error"]
    assert error["event_id"] is None
    assert error["code"] in {"invalid_json", "invalid_value", "invalid_type", "missing_required_parameter"}
    await client.say("still here")


async def test_the_id_of_an_event_that_cannot_be_read_comes_back(client: Live) -> None:
    await client.socket.send(json.dumps({"event_id": "e1", "type": "nonsense"}))
    assert (await client.until("error"))["error"]["event_id"] == "e1"


async def test_more_sound_than_an_append_may_have(client: Live) -> None:
    error = await client.refused("input_audio_buffer.append", audio=base64.b64encode(bytes((15 << 20) + 2)).decode())
    assert (error["code"], error["param"]) == ("too_large", "audio")


async def test_a_frame_that_unfolds_to_too_much(client: Live) -> None:
    error = await client.refused("session.update", session={"tools": [[]] * 250_000})
    assert error["code"] == "frame_too_large"


async def refusal(base_url: str, path: str = f"model={MODEL}", **options: Any) -> httpx.Response:
    """What a client reads instead of an upgrade."""
    with pytest.raises(InvalidStatus) as refused:
        async with live(base_url, query=path, **options):
            pass
    response = refused.value.response
    return httpx.Response(response.status_code, content=bytes(response.body))


@pytest.mark.parametrize(
    ("query", "options", "status", "code"),
    [
        ("model=gpt-9", {}, 404, "model_not_found"),
        ("", {}, 400, "missing_required_parameter"),
        (f"model={MODEL}&intent=transcription", {}, 400, "unsupported_value"),
        (f"model={MODEL}", {"additional_headers": {"OpenAI-Beta": "realtime=v1"}}, 400, "beta_api_not_served"),
        (f"model={MODEL}", {"additional_headers": {"Authorization": "Bearer ek_unknown"}}, 401, "invalid_api_key"),
    ],
)
async def test_what_cannot_be_served_is_refused_before_the_upgrade(
    base_url: str, query: str, options: dict[str, Any], status: int, code: str
) -> None:
    refused = await refusal(base_url, query, **options)
    assert refused.status_code == status
    assert refused.json()["error"]["code"] == code
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_gateway_that_stops_takes_no_session(base_url: str, app: Any) -> None:
    await app.state.gate.close(0)
    assert (await refusal(base_url)).status_code == 503


class TestClientSecrets:
    async def test_a_browser_enters_by_its_secret_alone(self, base_url: str) -> None:
        async with httpx.AsyncClient(base_url=base_url) as http:
            session = {"type": "realtime", "instructions": "be brief", "output_modalities": ["text"]}
            made = (await http.post("/v1/realtime/client_secrets", json={"session": session})).json()
        assert made["value"].startswith("ek_")
        assert made["session"]["instructions"] == "be brief"
        protocols = ["realtime", f"openai-insecure-api-key.{made['value']}"]
        async with live(base_url, query="", subprotocols=protocols) as client:
            assert client.socket.subprotocol == "realtime"
            assert client.events[0]["session"]["instructions"] == "be brief"
            await client.say("hello")
            assert (await client.respond())["output"][0]["content"][0]["text"]

    async def test_what_a_session_may_not_be_no_secret_is_made_for(self, base_url: str) -> None:
        async with httpx.AsyncClient(base_url=base_url) as http:
            session = {"type": "realtime", "output_modalities": ["text", "audio"]}
            refused = await http.post("/v1/realtime/client_secrets", json={"session": session})
        assert_envelope(refused, 400, param="session.output_modalities")
