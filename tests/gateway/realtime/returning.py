"""Clients who come back to a session by its id and the last event that they have, and what they have had in all."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from antiphon.storage.connection import open_redis
from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.caller import ANONYMOUS_TENANT
from antiphon.wire.stages import Stages
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import listening
from tests.gateway.realtime.live import Event, Live, live
from tests.redis_server import PATIENT

# Gateways of one Redis, each with its address.
Two = tuple[tuple[str, FastAPI], ...]
# Of a response's text, thought or sound; where one is cut is another in each response.
TEXTS = ("response.output_audio_transcript.delta", "response.output_text.delta")


@asynccontextmanager
async def gateways(settings: GatewaySettings, stages: Stages, *redis_urls: str) -> AsyncIterator[Two]:
    """One for each URL."""
    async with AsyncExitStack() as opened:
        found = []
        for redis_url in redis_urls:
            metrics = Metrics()
            storage = await opened.enter_async_context(open_redis(redis_url, PATIENT, metrics=metrics))
            app = create_app(settings, stages, metrics=metrics, storage=storage)
            found.append((await opened.enter_async_context(listening(app)), app))
        yield tuple(found)


@asynccontextmanager
async def returning(base_url: str, events: list[Event], **options: Any) -> AsyncIterator[Live]:
    """A client that has these events, of which `events` then holds all."""
    session_id = events[0]["session"]["id"]
    query = f"session_id={session_id}&last_event_id={events[-1]['event_id']}"
    async with connect(f"{base_url.replace('http', 'ws', 1)}/v1/realtime?{query}", **options) as socket:
        client = Live(socket)
        client.events = events
        client._event_ids = {event["event_id"] for event in events}
        yield client


async def lost_after(client: Live, kind: str, count: int) -> list[Event]:
    """What a client has whose connection breaks as soon as so many of these have come."""
    while sum(event["type"] == kind for event in client.events) < count:
        await client.next()
    client.socket.transport.abort()
    return list(client.events)


def numbers(events: list[Event]) -> list[int]:
    """Of the session's events, in the order in which they came."""
    return [int(event["event_id"].rpartition("_")[2]) for event in events]


def said(events: list[Event]) -> tuple[str, bytes, str]:
    """All text, sound and arguments."""
    sounds = (base64.b64decode(event["delta"]) for event in events if event["type"] == "response.output_audio.delta")
    text = "".join(event["delta"] for event in events if event["type"] in TEXTS)
    called = (event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta")
    return text, b"".join(sounds), "".join(called)


def outline(events: list[Event]) -> list[tuple[str, Any, Any]]:
    """What was told beside the pieces: kinds and ids, which must be the same wherever a response goes on."""
    told = [
        event for event in events if not event["type"].endswith(".delta") and event["type"] != "rate_limits.updated"
    ]
    return [
        (
            event["type"],
            event.get("response_id") or event.get("response", {}).get("id"),
            event.get("item_id") or event.get("item", {}).get("id"),
        )
        for event in told
    ]


async def rest(client: Live) -> Event:
    """Up to the end of the response that is under way."""
    done = await client.until("response.done")
    await asyncio.sleep(0)
    return done["response"]  # type: ignore[no-any-return]


def content(event: Event) -> str:
    return json.dumps(event, sort_keys=True)


async def until_closed(client: Live) -> Close:
    """How the server closes the connection; what it tells before is kept."""
    try:
        while True:
            await client.next()
    except ConnectionClosed as closed:
        return closed.rcvd or Close(1006, "broken off")


async def ask(client: Live, **response: Any) -> None:
    await client.say("what is it", id="question")
    await client.send("response.create", response=response)


async def undisturbed(url: str, **response: Any) -> list[Event]:
    async with live(url) as client:
        await ask(client, **response)
        await client.until("response.done")
        return client.events


async def caught_up(client: Live, app: FastAPI) -> list[Event]:
    """What the client has, once all of it is kept."""
    had = list(client.events)
    session_id, last = had[0]["session"]["id"], numbers(had)[-1]
    async with asyncio.timeout(60):
        while True:
            if (await app.state.sessions.events.after(ANONYMOUS_TENANT, session_id, last, 1)).last_id >= last:
                return had
            await asyncio.sleep(0.05)
