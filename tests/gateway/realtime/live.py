"""A client of live sessions for tests: every event that it gets is held against OpenAI's own types."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import numpy as np
import soxr
from numpy.typing import NDArray
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from websockets.asyncio.client import ClientConnection, connect

from tests.gateway.conftest import MODEL

Event = dict[str, Any]
PATIENCE_SECONDS: Final = 60
_EVENTS: Final[TypeAdapter[Any]] = TypeAdapter(RealtimeServerEvent)
# Strict on values: OpenAI's types let any extra field pass.
_KNOWN_TYPES: Final = frozenset(
    kind
    for member in RealtimeServerEvent.__args__[0].__args__
    for kind in member.model_fields["type"].annotation.__args__  # type: ignore[attr-defined]
)


class Live:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[Event] = []
        self._event_ids: set[str] = set()

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def next(self) -> Event:
        async with asyncio.timeout(PATIENCE_SECONDS):
            frame = await self.socket.recv()
        assert isinstance(frame, str)
        assert len(frame) <= 1 << 20
        event: Event = json.loads(frame)
        self._check(event)
        self.events.append(event)
        return event

    async def until(self, kind: str) -> Event:
        """The next event of this type; what comes before it is kept in `events`."""
        event = await self.next()
        while event["type"] != kind:
            assert event["type"] != "error", event
            event = await self.next()
        return event

    async def ask(self, kind: str, answer: str, **fields: Any) -> Event:
        await self.send(kind, **fields)
        return await self.until(answer)

    async def refused(self, kind: str, **fields: Any) -> Event:
        """The error that an event of ours gets, which carries its id."""
        error: Event = (await self.ask(kind, "error", event_id="mine", **fields))["error"]
        assert error["event_id"] == "mine"
        assert set(error) == {"type", "code", "message", "param", "event_id"}
        return error

    async def update(self, **session: Any) -> Event:
        updated: Event = await self.ask("session.update", "session.updated", session={"type": "realtime", **session})
        return updated["session"]  # type: ignore[no-any-return]

    async def say(self, text: str, role: str = "user", **fields: Any) -> Event:
        kind = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **fields}
        return await self.ask("conversation.item.create", "conversation.item.done", item=item)

    async def speak(self, samples: NDArray[np.float32], rate_hz: int) -> None:
        """Signed 16-bit PCM at 24 kHz in frames of 100 ms."""
        data = pcm(soxr.resample(samples, rate_hz, 24_000))
        for start in range(0, len(data), 4800):
            await self.send("input_audio_buffer.append", audio=base64.b64encode(data[start : start + 4800]).decode())

    async def respond(self, **response: Any) -> Event:
        done = await self.ask("response.create", "response.done", response=response)
        return done["response"]  # type: ignore[no-any-return]

    def since(self, start: Event) -> list[str]:
        """Types of the events from this one on."""
        return [event["type"] for event in self.events[self.events.index(start) :]]

    def _check(self, event: Event) -> None:
        assert event["type"] in _KNOWN_TYPES, event["type"]
        read = _EVENTS.validate_python(event)
        assert read.type == event["type"]
        assert event["event_id"] not in self._event_ids
        self._event_ids.add(event["event_id"])


@asynccontextmanager
async def live(base_url: str, *, query: str = f"model={MODEL}", **options: Any) -> AsyncIterator[Live]:
    """base_url: without /v1. Its first event has been read."""
    async with connect(f"{base_url.replace('http', 'ws', 1)}/v1/realtime?{query}", **options) as socket:
        client = Live(socket)
        assert (await client.next())["type"] == "session.created"
        yield client


def pcm(samples: NDArray[np.float32]) -> bytes:
    return np.rint(np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()


def silence(seconds: float, rate_hz: int) -> NDArray[np.float32]:
    return np.zeros(round(seconds * rate_hz), np.float32)


def heard(events: list[Event], response_id: str) -> bytes:
    """The sound of one response."""
    deltas = [e for e in events if e["type"] == "response.output_audio.delta" and e["response_id"] == response_id]
    return b"".join(base64.b64decode(delta["delta"]) for delta in deltas)
