"""A client that lost its gateway finds its conversation at another one of the same Redis."""

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus

from antiphon.sessions.conversation_format import pack_conversation, unpack_conversation
from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.caller import ANONYMOUS_TENANT
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from services.gateway.realtime.core.alignment import Alignment
from services.gateway.realtime.core.items import (
    AssistantItem,
    CallItem,
    CallOutputItem,
    InputImage,
    InputSound,
    InputText,
    Item,
    OutputSpeech,
    OutputText,
    SystemItem,
    UserItem,
)
from services.gateway.realtime.kept_session import KeptSession, conversation_of, hashes_of, media_of, session_of
from tests.gateway.conftest import Fakes, listening
from tests.gateway.realtime.live import Live, live, pcm
from tests.gateway.realtime.returning import gateways
from tests.redis_server import RedisServer

TONE = np.sin(np.arange(24_000) / 20).astype(np.float32) / 2


async def kept(app: FastAPI, session_id: str, is_there: Callable[[KeptSession], bool]) -> None:
    """Until the session is kept like this."""
    async with asyncio.timeout(20):
        while True:
            await asyncio.sleep(0.02)
            try:
                stored = await app.state.sessions.conversations.load(ANONYMOUS_TENANT, session_id)
            except Exception:  # noqa: S112 - not yet
                continue
            if is_there(session_of(stored.conversation, {})):
                return


def session_id_of(client: Live) -> str:
    return str(client.events[0]["session"]["id"])


async def items_told(client: Live, count: int) -> list[dict[str, Any]]:
    """Of a session that goes on: each is added and done."""
    events = [await client.next() for _ in range(2 * count)]
    kinds = [event["type"] for event in events]
    assert kinds == ["conversation.item.added", "conversation.item.done"] * count
    assert [event["item"] for event in events[::2]] == [event["item"] for event in events[1::2]]
    return [event["item"] for event in events[::2]]


async def asked(client: Live, fakes: Fakes) -> tuple[Any, ...]:
    """What the stages are asked for an answer that leaves nothing in the conversation."""
    fakes.thinker.behaviour.received.clear()
    await client.respond(conversation="none", output_modalities=["text"])
    start = [got.start for got in fakes.thinker.behaviour.received if got.HasField("start")][-1]
    return list(start.prompt.token_ids), start.sampling.temperature, start.cache_salt


def sounds_encoded(fakes: Fakes) -> set[bytes]:
    """Since the last time."""
    sent = {got.SerializeToString(deterministic=True) for got in fakes.encoders.behaviour.received}
    fakes.encoders.behaviour.received.clear()
    return {data for data in sent if b"WAVE" in data}


async def talk(client: Live) -> None:
    """Typed and spoken items, other configuration, and an answer that was cut."""
    await client.update(instructions="be brief", audio={"input": {"turn_detection": None}}, output_modalities=["audio"])
    await client.say("what is it", id="typed")
    sound = {"type": "input_audio", "audio": base64.b64encode(pcm(TONE)).decode()}
    item = {"type": "message", "id": "spoken", "role": "user", "content": [sound]}
    await client.ask("conversation.item.create", "conversation.item.done", item=item)
    answer = (await client.respond())["output"][0]["id"]
    cut = {"item_id": answer, "content_index": 0, "audio_end_ms": 100}
    await client.ask("conversation.item.truncate", "conversation.item.truncated", **cut)


def is_cut(session: KeptSession) -> bool:
    part = session.items[-1].parts[0] if isinstance(session.items[-1], AssistantItem) else None
    return len(session.items) == 3 and isinstance(part, OutputSpeech) and part.heard_ms == 100


async def test_a_session_goes_on_at_another_gateway(
    settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer
) -> None:
    async with gateways(settings, fakes.stages(), *[redis_server.url] * 2) as ((one, app), (other, _)):
        async with live(one) as client:
            await talk(client)
            before, encoded = await asked(client, fakes), sounds_encoded(fakes)
            session_id = session_id_of(client)
            known = [
                (await client.ask("conversation.item.retrieve", "conversation.item.retrieved", item_id=i))["item"]
                for i in ("typed", "spoken", client_last(client))
            ]
            configured = next(e["session"] for e in client.events if e["type"] == "session.updated")
            await kept(app, session_id, is_cut)
            client.socket.transport.abort()
        async with live(other, query=f"session_id={session_id}") as client:
            session = client.events[0]["session"]
            assert {**session, "expires_at": 0} == {**configured, "expires_at": 0}
            told = await items_told(client, 3)
            assert [item["id"] for item in told] == [item["id"] for item in known]
            sound = await client.ask("conversation.item.retrieve", "conversation.item.retrieved", item_id="spoken")
            assert sound["item"] == known[1]
            assert told[2] == known[2]
            assert await asked(client, fakes) == before
            assert sounds_encoded(fakes) == encoded != set()
            cut = {"item_id": told[2]["id"], "content_index": 0, "audio_end_ms": 50}
            await client.ask("conversation.item.truncate", "conversation.item.truncated", **cut)


def client_last(client: Live) -> str:
    """The item that was cut."""
    return str(next(e["item_id"] for e in client.events if e["type"] == "conversation.item.truncated"))


async def test_an_answer_under_way_stays_as_far_as_it_was_heard(
    settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer
) -> None:
    fakes.talker.behaviour.pause_seconds = 0.1
    async with gateways(settings, fakes.stages(), *[redis_server.url] * 2) as ((one, app), (other, _)):
        async with live(one) as client:
            await client.say("what is it")
            await client.send("response.create", response={})
            await client.until("response.output_audio.delta")
            session_id = session_id_of(client)
            await kept(app, session_id, lambda session: len(session.items) == 2)
            client.socket.transport.abort()
        async with live(other, query=f"session_id={session_id}") as client:
            answer = (await items_told(client, 2))[1]
            assert (answer["role"], answer["status"]) == ("assistant", "incomplete")
            assert "the cat is black".startswith(answer["content"][0]["transcript"])
            assert (await client.respond())["status"] == "completed"


@pytest.mark.parametrize("session_id", ["sess_" + "0" * 24, "sess_../other", ""])
async def test_a_session_that_is_not_there_is_refused_before_the_upgrade(
    settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer, session_id: str
) -> None:
    async with gateways(settings, fakes.stages(), *[redis_server.url] * 2) as ((one, _), _):
        await refused(one, session_id)


async def refused(base_url: str, session_id: str, **options: Any) -> None:
    with pytest.raises(InvalidStatus) as raised:
        async with live(base_url, query=f"session_id={session_id}", **options):
            pass
    error = json.loads(raised.value.response.body)["error"]
    assert (raised.value.response.status_code, error["code"]) == (404, "session_not_found")


async def test_another_tenants_session_is_unknown(
    settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer
) -> None:
    async with (
        gateways(settings, fakes.stages(), *[redis_server.url] * 2) as ((one, app), (other, _)),
        live(one) as client,
    ):
        await client.say("what is it")
        session_id = session_id_of(client)
        await kept(app, session_id, lambda session: len(session.items) == 1)
        conversations = app.state.sessions.conversations
        stored = await conversations.load(ANONYMOUS_TENANT, session_id)
        await conversations.delete(ANONYMOUS_TENANT, session_id)
        await conversations.create("another", stored.conversation)
        await refused(other, session_id)


async def test_the_newer_connection_wins(settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer) -> None:
    async with (
        gateways(settings, fakes.stages(), *[redis_server.url] * 2) as ((one, app), (other, _)),
        live(one) as older,
    ):
        await older.say("what is it")
        session_id = session_id_of(older)
        await kept(app, session_id, lambda session: len(session.items) == 1)
        async with live(other, query=f"session_id={session_id}") as newer:
            await items_told(newer, 1)
            await older.send("input_audio_buffer.clear")
            assert (await older.until("error"))["error"]["code"] == "session_taken_over"
            with pytest.raises(ConnectionClosed) as closed:
                await older.next()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            await newer.say("it is me", id="newest")
            await kept(app, session_id, lambda session: [i.id for i in session.items][1:] == ["newest"])


async def test_a_session_goes_on_in_the_same_process_where_that_is_asked_for(
    settings: GatewaySettings, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_REALTIME_KEEPS_SESSIONS", "true")
    app = create_app(settings, fakes.stages(), metrics=Metrics())
    async with listening(app) as url:
        async with live(url) as client:
            await client.say("what is it")
            session_id = session_id_of(client)
            await kept(app, session_id, lambda session: len(session.items) == 1)
        async with live(url, query=f"session_id={session_id}") as client:
            assert (await items_told(client, 1))[0]["content"] == [{"type": "input_text", "text": "what is it"}]


async def test_a_gateway_that_stops_keeps_its_sessions_first(
    settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer
) -> None:
    async with gateways(settings, fakes.stages(), *[redis_server.url] * 2) as ((one, app), (other, _)):
        async with live(one) as client:
            await client.say("what is it")
            await app.state.gate.close(drain_seconds=5)
            with pytest.raises(ConnectionClosed):
                await client.next()
        async with live(other, query=f"session_id={session_id_of(client)}") as client:
            assert (await items_told(client, 1))[0]["content"] == [{"type": "input_text", "text": "what is it"}]


_TEXT = st.text(max_size=8)
_STATUS = st.sampled_from(["completed", "incomplete", "in_progress"])
_COUNT = st.integers(0, 1 << 20)
_ALIGNED = st.builds(
    Alignment, st.lists(st.tuples(_COUNT, _COUNT), max_size=3).map(tuple), st.floats(1, 5000, allow_nan=False)
)
_SPEECH = st.builds(OutputSpeech, _TEXT, _COUNT, _ALIGNED, st.none() | _COUNT) | st.builds(OutputSpeech, _TEXT)
_SOUND = st.builds(InputSound, st.binary(max_size=8), st.sampled_from(["pcm", "pcmu", "pcma"]), st.none() | _TEXT)
_INPUT = st.builds(InputText, _TEXT) | _SOUND | st.builds(InputImage, st.binary(max_size=8), _TEXT)
_OUTPUT = st.builds(OutputText, _TEXT) | _SPEECH


def _several(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(parts, max_size=3).map(tuple)


_ITEM: st.SearchStrategy[Item] = (
    st.builds(UserItem, _TEXT, _several(_INPUT), _STATUS)
    | st.builds(SystemItem, _TEXT, _several(st.builds(InputText, _TEXT)), _STATUS)
    | st.builds(AssistantItem, _TEXT, _several(_OUTPUT), _STATUS)
    | st.builds(CallItem, _TEXT, _TEXT, _TEXT, _TEXT, _STATUS)
    | st.builds(CallOutputItem, _TEXT, _TEXT, _TEXT, _STATUS)
)


@given(st.lists(_ITEM, max_size=8, unique_by=lambda item: item.id).map(tuple), st.booleans())
def test_a_kept_session_is_the_same_again(items: tuple[Item, ...], has_spoken: bool) -> None:
    session = KeptSession({"instructions": "be brief"}, items, has_spoken, "connection")
    hashes = {place: data.hex() or "empty" for place, data in media_of(items)}
    media = {hashes[place]: data for place, data in media_of(items)}
    conversation = unpack_conversation(pack_conversation(conversation_of("sess_1", session, hashes, 1.0, 2.0)))
    assert hashes_of(conversation) == set(media)
    assert session_of(conversation, media) == session


def test_a_session_that_an_older_release_kept_is_read() -> None:
    session = KeptSession(
        {"voice": "ethan"}, (), has_spoken=True, connection_id="c", answering={"resp_1": 7}, event_count=9
    )
    conversation = conversation_of("sess_1", session, {}, 1.0, 2.0)
    told = json.loads(conversation.configuration)
    for later in ("answering", "asked_apart", "transcribing", "owes_answer", "event_count"):
        del told[later]
    older = replace(conversation, configuration=json.dumps(told))
    assert session_of(conversation, {}) == session
    assert session_of(older, {}) == replace(session, answering={}, event_count=0)


def test_what_is_not_kept_of_a_medium_is_what_was_understood_of_it() -> None:
    parts = (InputSound(b"ab", "pcm", "hello"), InputImage(b"cd", "image/png"), InputSound(b"ef", "pcm"))
    session = KeptSession({}, (UserItem("a", parts),), has_spoken=False, connection_id="c")
    conversation = conversation_of("sess_1", session, {}, 1.0, 2.0)
    assert session_of(conversation, {}).items == (UserItem("a", (InputText("hello"),)),)
