"""A user of a live session who speaks in real time: every piece of his sound leaves when a microphone would have it."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect

from antiphon.hosting.default_checkpoint import default_checkpoint

RATE_HZ: Final = 24_000
PIECE_MS: Final = 40
_PATIENCE_SECONDS: Final = 120.0
# Below this a sample of the recording belongs to no word.
_QUIET: Final = 0.02

Samples = NDArray[np.float32]


def words(seconds: float, number: int) -> Samples:
    """The example's question without the quiet around it, said again until so long, with other noise of a step of the
    65,536 for each number; its last sample is the end of a word."""
    samples, rate = soundfile.read(default_checkpoint() / "examples" / "question.wav", dtype="float32")
    said = soxr.resample(samples, rate, RATE_HZ)
    loud = np.flatnonzero(np.abs(said) > _QUIET)
    said = said[loud[0] : loud[-1] + 1]
    # Whole questions, so that the end is one of a word, and the first cut to fit.
    repeated = np.tile(said, -(-round(seconds * RATE_HZ) // len(said)))[-round(seconds * RATE_HZ) :]
    noise = np.random.default_rng(number).integers(-1, 2, len(repeated)) / 32_768
    return (repeated + noise).astype(np.float32)


def pieces(samples: Samples, piece_ms: int = PIECE_MS) -> list[str]:
    """As events of the client, made before the clock starts."""
    pcm, step = np.rint(np.clip(samples, -1, 1) * 32_767).astype("<i2"), RATE_HZ * piece_ms // 1000
    cut = (pcm[start : start + step] for start in range(0, len(pcm), step))
    return [appended(piece.tobytes()) for piece in cut]


def appended(pcm16: bytes) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(pcm16).decode()})


def silence(piece_ms: int) -> str:
    return appended(bytes(2 * RATE_HZ * piece_ms // 1000))


_SILENCE: Final = silence(PIECE_MS)


@dataclass(frozen=True, slots=True)
class LiveTurn:
    # From the end of the last word, as it was spoken, until the first sound of the answer has come.
    first_audio_ms: float
    answer_samples: int


@asynccontextmanager
async def session(base_url: str, model: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """options: of the session object."""
    url = f"{base_url.replace('http', 'ws', 1)}/v1/realtime?model={model}"
    # Whether a gateway that does not keep up is still there is not asked: what it costs is.
    async with connect(url, max_size=None, ping_interval=None) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", **options}}))
        await _until(socket, "session.updated")
        yield socket


async def speak(socket: ClientConnection, said: Samples) -> LiveTurn:
    """One turn: so many words, then silence for as long as it takes. Raises RuntimeError when it is not answered."""
    sound = pieces(said)
    began = time.perf_counter()
    ended = began + len(said) / RATE_HZ
    sending = asyncio.create_task(_send(socket, sound, began))
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await _until(socket, "response.output_audio.delta")
            first_audio_ms = (time.perf_counter() - ended) * 1e3
            done = (await _until(socket, "response.done"))["response"]
    finally:
        sending.cancel()
        await asyncio.wait({sending})
    if done["status"] not in ("completed", "incomplete"):
        raise RuntimeError(f"The turn was not answered: {done['status_details']}")
    return LiveTurn(first_audio_ms, done["usage"]["output_token_details"]["audio_tokens"] * 1920)


async def _send(socket: ClientConnection, sound: list[str], began: float) -> None:
    number = 0
    while True:
        number += 1
        await asyncio.sleep(began + number * PIECE_MS / 1e3 - time.perf_counter())
        await socket.send(sound[number - 1] if number <= len(sound) else _SILENCE)


async def _until(socket: ClientConnection, kind: str) -> dict[str, Any]:
    async for frame in socket:
        event: dict[str, Any] = json.loads(frame)
        if event["type"] == kind:
            return event
        if event["type"] == "error":
            raise RuntimeError(f"The session was told: {event['error']['message']}")
    raise RuntimeError(f"The session ended before {kind}.")
