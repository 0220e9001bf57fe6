"""Clients who ask for spoken answers, and ask another gateway for the rest where theirs is gone."""

import asyncio
import base64
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import httpx
import numpy as np
from numpy.typing import NDArray

from antiphon.telemetry.playback import Playback

QUESTIONS: Final = (
    "Count to ten.",
    "What is the capital of France?",
    "What sound does a cow make?",
    "How much is seven plus five?",
    "What colour is the sky?",
    "Hello!",
)
_CHAT: Final = "/v1/chat/completions"
# A turn that has found no gateway for so long has failed.
_PATIENCE_SECONDS: Final = 20.0


@dataclass(slots=True)
class Heard:
    began: float = field(default_factory=time.monotonic)
    ended: float = math.inf
    text: str = ""
    pcm: bytearray = field(default_factory=bytearray)
    moments: list[float] = field(default_factory=list)
    playback: Playback = field(default_factory=Playback)
    longest_silence_seconds: float = 0.0
    answer_id: str = ""
    event_id: str = ""
    is_over: bool = False
    # Times that its stream broke, and that no gateway began it.
    breaks: int = 0
    refusals: int = 0

    def read(self, line: str) -> None:
        """One line of a stream of events."""
        if line.startswith("id:"):
            self.event_id = line[3:].strip()
        if not line.startswith("data:"):
            return
        data = line[5:].strip()
        if data == "[DONE]":
            self.is_over = True
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise RuntimeError(chunk["error"]["message"])
        self.answer_id = chunk["id"]
        for choice in chunk["choices"]:
            self._hear(choice["delta"].get("audio") or {})

    def samples(self) -> NDArray[np.int32]:
        return np.frombuffer(bytes(self.pcm), dtype="<i2").astype(np.int32)

    @property
    def longest_gap_seconds(self) -> float:
        return max((late - early for early, late in pairwise(self.moments)), default=0.0)

    def _hear(self, audio: dict[str, str]) -> None:
        self.text += audio.get("transcript") or ""
        if audio.get("data"):
            piece = base64.b64decode(audio["data"])
            self.pcm += piece
            self.moments.append(time.monotonic())
            silent_before = self.playback.silent_seconds
            self.playback.deliver(len(piece) // 2, self.moments[-1])
            silence = self.playback.silent_seconds - silent_before
            self.longest_silence_seconds = max(self.longest_silence_seconds, silence)


@dataclass(slots=True)
class Listener:
    """Asks one gateway after the other until it has the whole answer."""

    # Base URLs of gateways.
    urls: Sequence[str]
    client: httpx.AsyncClient
    model: str
    gateway: int = 0

    async def ask(self, number: int) -> Heard:
        heard, until = Heard(), time.monotonic() + _PATIENCE_SECONDS
        while not heard.is_over:
            try:
                await self._read(number, heard)
            except httpx.TransportError:
                heard.breaks += bool(heard.answer_id)
                heard.refusals += not heard.answer_id
                self.gateway += 1
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.05)
        heard.ended = time.monotonic()
        return heard

    async def _read(self, number: int, heard: Heard) -> None:
        url = self.urls[(number + self.gateway) % len(self.urls)]
        if heard.answer_id:
            path, headers = f"{url}{_CHAT}/{heard.answer_id}/events", {"Last-Event-ID": heard.event_id}
            asking = self.client.stream("GET", path, headers=headers)
        else:
            asking = self.client.stream("POST", url + _CHAT, json=self._body(number))
        async with asking as response:
            if response.status_code != httpx.codes.OK:
                raise _refusal(response.status_code, (await response.aread()).decode(errors="replace"))
            async for line in response.aiter_lines():
                heard.read(line)
        if not heard.is_over:
            raise httpx.ReadError("the stream ended early")

    def _body(self, number: int) -> dict[str, object]:
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}],
            "modalities": ["text", "audio"],
            "audio": {"voice": "ethan", "format": "pcm16"},
            "temperature": 0,
            "seed": number % len(QUESTIONS),
            "max_completion_tokens": 48,
            "stream": True,
        }


def _refusal(status: int, text: str) -> Exception:
    """A transport's error, after which is asked again, where the gateway is gone or stops. Of one that died Serve's
    proxy says 500, in plain text; what a gateway says of its own fault is JSON."""
    is_gone = status == httpx.codes.INTERNAL_SERVER_ERROR and not text.startswith("{")
    if is_gone or status == httpx.codes.SERVICE_UNAVAILABLE:
        return httpx.ReadError(f"{status}: {text[:300]}")
    return RuntimeError(f"{status}: {text[:300]}")
