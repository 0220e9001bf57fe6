"""A client who lost its stream goes on at any gateway: nothing comes twice and nothing is missing."""

import asyncio
import base64
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI

from antiphon.errors import AtCapacity
from antiphon.storage.connection import open_redis
from antiphon.storage.settings import StorageSettings
from antiphon.telemetry.metrics import Metrics
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from services.gateway.http.request_body import BodyShare
from tests.gateway.conftest import MODEL, Fakes, assert_envelope, body, listening, spoken
from tests.redis_server import RedisServer, running_redis

CHAT = "/v1/chat/completions"
ASKED = spoken(stream=True, stream_options={"include_usage": True}, audio={"voice": "ethan", "format": "pcm16"})


@dataclass
class Heard:
    """What a client gathers of a stream, through however many connections."""

    text: str = ""
    arguments: str = ""
    pcm: bytes = b""
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    last_id: str = ""
    is_done: bool = False
    error: dict[str, Any] | None = None

    def read(self, stream: str) -> None:
        """Whole events of it."""
        for frame in stream.split("\n\n")[:-1]:
            lines = dict(line.split(": ", 1) for line in frame.split("\n") if not line.startswith(":"))
            if "data" in lines:
                self._take(lines.get("id", ""), lines["data"])

    def _take(self, event_id: str, data: str) -> None:
        self.last_id = event_id or self.last_id
        if data == "[DONE]":
            self.is_done = True
            return
        chunk = json.loads(data)
        self.error = chunk.get("error")
        self.events.append((event_id, chunk))
        for choice in chunk.get("choices", ()):
            audio = choice["delta"].get("audio") or {}
            self.text += audio.get("transcript") or choice["delta"].get("content") or ""
            self.pcm += base64.b64decode(audio.get("data") or "")
            for call in choice["delta"].get("tool_calls") or ():
                self.arguments += call["function"].get("arguments") or ""

    @property
    def answer_id(self) -> str:
        return str(self.events[0][1]["id"])

    @property
    def usage(self) -> dict[str, Any]:
        return {**self.events[-1][1]["usage"]}


@pytest.fixture(params=["memory", "redis"])
async def apps(
    request: pytest.FixtureRequest, settings: GatewaySettings, fakes: Fakes
) -> AsyncIterator[tuple[FastAPI, FastAPI]]:
    """Two gateways that share a Redis; in memory one, twice."""
    async with AsyncExitStack() as opened:
        if request.param == "memory":
            kept = settings.model_copy(update={"journals_answers": True})
            app = create_app(kept, fakes.stages(), metrics=Metrics())
            yield app, app
        else:
            server: RedisServer = request.getfixturevalue("redis_server")
            made = []
            for _ in range(2):
                metrics = Metrics()
                storage = await opened.enter_async_context(open_redis(server.url, metrics=metrics))
                made.append(create_app(settings, fakes.stages(), metrics=metrics, storage=storage))
            yield made[0], made[1]


@asynccontextmanager
async def calling(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        yield client


async def whole(app: FastAPI, asked: dict[str, Any] = ASKED) -> Heard:
    heard = Heard()
    async with calling(app) as client:
        heard.read((await client.post(CHAT, json=asked)).text)
    assert heard.is_done
    return heard


async def go_on(app: FastAPI, answer_id: str, last_id: str, heard: Heard) -> httpx.Response:
    async with calling(app) as client:
        headers = {"last-event-id": last_id} if last_id else {}
        answer = await client.get(f"{CHAT}/{answer_id}/events", headers=headers)
    heard.read(answer.text)
    return answer


async def beginning(parts: AsyncIterator[str], events: int) -> str:
    """At least so many whole events."""
    text = ""
    while text.count("\n\n") < events or not text.endswith("\n\n"):
        text += await anext(parts)
    return text


async def test_from_every_event_on_another_gateway_tells_the_rest(apps: tuple[FastAPI, FastAPI]) -> None:
    one, other = apps
    undisturbed = await whole(one)
    assert all(event_id.startswith(f"{undisturbed.answer_id}.") for event_id, _ in undisturbed.events)
    for count in range(len(undisturbed.events) + 1):
        heard = Heard()
        for event_id, chunk in undisturbed.events[:count]:
            heard._take(event_id, json.dumps(chunk))
        answer = await go_on(other, undisturbed.answer_id, heard.last_id, heard)
        assert answer.status_code == 200, answer.text
        assert heard.is_done
        assert (heard.text, heard.pcm) == (undisturbed.text, undisturbed.pcm)
        assert [chunk["id"] for _, chunk in heard.events] == [undisturbed.answer_id] * len(heard.events)
        assert heard.usage == undisturbed.usage
        roles = [c["delta"].get("role") for _, chunk in heard.events for c in chunk["choices"]]
        assert roles.count("assistant") == 1
        ends = [c["finish_reason"] for _, chunk in heard.events for c in chunk["choices"] if c["finish_reason"]]
        assert ends == ["stop"]


async def test_who_has_everything_is_told_only_that_it_was_all(apps: tuple[FastAPI, FastAPI]) -> None:
    undisturbed = await whole(apps[0])
    answer = await go_on(apps[1], undisturbed.answer_id, undisturbed.last_id, Heard())
    assert answer.text == f"id: {undisturbed.last_id}\ndata: [DONE]\n\n"


async def test_a_stream_that_is_hung_up_on_frees_its_stages_and_goes_on_later(
    apps: tuple[FastAPI, FastAPI], fakes: Fakes
) -> None:
    fakes.talker.frames_after_text = 60
    undisturbed = await whole(apps[0])
    fakes.talker.behaviour.pause_seconds = 0.01
    heard = Heard()
    async with listening(apps[0]) as url, httpx.AsyncClient(base_url=url) as client:
        async with client.stream("POST", CHAT, json=ASKED) as stream:
            heard.read(await beginning(stream.aiter_text(), 20))
        await fakes.until_closed()
    fakes.talker.behaviour.pause_seconds = 0
    before = len(heard.pcm)
    await go_on(apps[1], heard.answer_id, heard.last_id, heard)
    assert 0 < before < len(heard.pcm)
    assert (heard.text, heard.pcm, heard.is_done) == (undisturbed.text, undisturbed.pcm, True)
    (spoken_before,) = [
        each.start.spoken.codes.shape[0]
        for each in fakes.talker.behaviour.received
        if each.HasField("start") and each.start.HasField("spoken")
    ]
    assert spoken_before > 10, "the frames that were made are not made again"


async def test_a_stream_that_is_taken_over_ends_where_it_was(apps: tuple[FastAPI, FastAPI], fakes: Fakes) -> None:
    fakes.talker.frames_after_text = 100
    fakes.talker.behaviour.pause_seconds = 0.02
    first, second = Heard(), Heard()
    async with listening(apps[0]) as url, httpx.AsyncClient(base_url=url) as client:
        async with client.stream("POST", CHAT, json=ASKED) as stream:
            parts = stream.aiter_text()
            first.read(await beginning(parts, 10))
            taking = asyncio.create_task(go_on(apps[1], first.answer_id, first.last_id, second))
            first.read("".join([part async for part in parts]))
        assert first.error is not None
        assert (first.error["code"], first.is_done) == ("taken_over", False)
        await taking
    assert second.is_done
    await fakes.until_closed()


async def test_calls_go_on_too_with_their_ids(
    apps: tuple[FastAPI, FastAPI], fakes: Fakes, write: Callable[[str], tuple[int, ...]]
) -> None:
    fakes.thinker.token_ids = write('It is <tool_call>\n{"name": "find", "arguments": {"city": "Kyoto"}}\n</tool_call>')
    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
    undisturbed = await whole(apps[0], body(stream=True, tools=[tool]))
    assert json.loads(undisturbed.arguments) == {"city": "Kyoto"}
    for count in range(1, len(undisturbed.events)):
        heard = Heard()
        for event_id, chunk in undisturbed.events[:count]:
            heard._take(event_id, json.dumps(chunk))
        await go_on(apps[1], undisturbed.answer_id, heard.last_id, heard)
        assert (heard.text, heard.arguments) == (undisturbed.text, undisturbed.arguments)
        assert call_ids(heard) == call_ids(undisturbed)


def call_ids(heard: Heard) -> list[str]:
    calls = [c["delta"].get("tool_calls") or [] for _, chunk in heard.events for c in chunk["choices"]]
    return [call["id"] for each in calls for call in each if call.get("id")]


@pytest.mark.parametrize(
    "last_id", ["chatcmpl-else.0.0.0", "nonsense", "{answer}.1.2", "{answer}.-1.0.0", "{answer}.1.2.3.4"]
)
async def test_ids_of_no_event_of_the_answer_are_refused(apps: tuple[FastAPI, FastAPI], last_id: str) -> None:
    undisturbed = await whole(apps[0])
    asked = last_id.format(answer=undisturbed.answer_id)
    refused = await go_on(apps[1], undisturbed.answer_id, asked, Heard())
    assert_envelope(refused, 400, "Last-Event-ID")
    async with calling(apps[1]) as client:
        refused = await client.get(f"{CHAT}/{undisturbed.answer_id}/events", params={"after": asked})
    assert_envelope(refused, 400, "after")


async def test_who_goes_on_takes_room_for_what_is_read_before_it_is(
    settings: GatewaySettings, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": base64.b64encode(bytes(3000)).decode(), "format": "wav"}}
    kept = settings.model_copy(update={"journals_answers": True})
    app = create_app(kept, fakes.stages(), metrics=Metrics())
    undisturbed = await whole(app, {**ASKED, **spoken([sound], stream=True)})
    taken: list[int] = []
    monkeypatch.setattr(BodyShare, "grow", lambda _, byte_count: taken.append(byte_count))
    assert (await go_on(app, undisturbed.answer_id, "", Heard())).status_code == 200
    record_bytes = await app.state.sessions.journal.size_bytes("anonymous", undisturbed.answer_id)
    assert taken == [record_bytes, 3000]

    def full(_: BodyShare, byte_count: int) -> None:
        raise AtCapacity("full")

    async def unread(*_: object) -> None:
        raise AssertionError("read before there was room")

    monkeypatch.setattr(BodyShare, "grow", full)
    monkeypatch.setattr(type(app.state.sessions.journal), "read", unread)
    assert (await go_on(app, undisturbed.answer_id, "", Heard())).status_code == 503


async def test_what_was_not_streamed_is_not_gone_on_with(apps: tuple[FastAPI, FastAPI]) -> None:
    async with calling(apps[0]) as client:
        answer = (await client.post(CHAT, json=body())).json()
    for answer_id in (answer["id"], "chatcmpl-nobodys", "x" * 64):
        assert_envelope(await go_on(apps[1], answer_id, "", Heard()), 404, "answer_id")


async def test_the_openai_sdk_reads_streams_with_ids_as_ever(apps: tuple[FastAPI, FastAPI]) -> None:
    undisturbed = await whole(apps[0])
    async with listening(apps[1]) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        text, pcm = "", b""
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "what is it"}],
            modalities=["text", "audio"],
            audio={"voice": "ethan", "format": "pcm16"},
            stream=True,
        )
        async for chunk in stream:
            audio = getattr(chunk.choices[0].delta, "audio", None)
            text += getattr(audio, "transcript", None) or ""
            pcm += base64.b64decode(getattr(audio, "data", None) or "")
    assert (text, pcm) == (undisturbed.text, undisturbed.pcm)


async def test_without_a_journal_events_have_no_ids_and_nobody_goes_on(client: httpx.AsyncClient) -> None:
    heard = Heard()
    heard.read((await client.post(CHAT, json=ASKED)).text)
    assert {event_id for event_id, _ in heard.events} == {""}
    refused = await client.get(f"{CHAT}/{heard.answer_id}/events")
    assert_envelope(refused, 404)


async def test_a_redis_that_hangs_holds_no_answer_up(settings: GatewaySettings, fakes: Fakes, tmp_path: Path) -> None:
    """Its events have no ids, since nobody could go on."""
    with running_redis(tmp_path) as server:
        patient = StorageSettings(answer_seconds=3)
        async with open_redis(server.url, patient, Metrics()) as storage:
            app = create_app(settings, fakes.stages(), metrics=Metrics(), storage=storage)
            await whole(app)
            fakes.talker.behaviour.pause_seconds = 0.02
            os.kill(server.process_id, signal.SIGSTOP)
            try:
                async with listening(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
                    began = time.monotonic()
                    async with client.stream("POST", CHAT, json=ASKED) as stream:
                        parts = stream.aiter_text()
                        text = await beginning(parts, 1)
                        assert time.monotonic() - began < 2, "an answer of Redis is waited for longer elsewhere"
                        text += "".join([part async for part in parts])
            finally:
                os.kill(server.process_id, signal.SIGCONT)
    heard = Heard()
    heard.read(text)
    assert heard.is_done
    assert heard.last_id == ""
