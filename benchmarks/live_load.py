"""Users of live sessions, in a process of their own, so that what they cost is not the gateway's; prints what they got.

Every microphone is open all the time: a user speaks for the first 30 % of each round, then is silent and is answered.
`live_sessions.py` starts as many of these processes as it takes.
"""

import asyncio
import json
import time
from dataclasses import asdict, dataclass, field
from typing import Annotated, Final

import typer
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from benchmarks.live_client import pieces, session, silence, words

ROUND_SECONDS: Final = 6.0
SAYS_SECONDS: Final = 1.8
_DETECTIONS: Final = {"server": {"type": "server_vad", "silence_duration_ms": 500}, "user": None}
_SOUND: Final = b'"type":"response.output_audio.delta"'
_DONE: Final = b'"type":"response.done"'
# Of an event, where its type is.
_HEAD_BYTES: Final = 64


@dataclass(slots=True)
class Heard:
    """Within the moments that count. first_audio_ms: since a turn's last piece of speech left."""

    answers: int = 0
    pieces: int = 0
    late_pieces: int = 0
    first_audio_ms: list[float] = field(default_factory=list)
    # Sessions that were not opened, or ended before their time.
    lost: int = 0
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """counts_from, counts_to: of the monotonic clock, which all processes of a machine share."""

    base_url: str
    model: str
    detection: str
    piece_ms: int
    counts_from: float
    counts_to: float

    def counts(self) -> bool:
        return self.counts_from <= time.monotonic() < self.counts_to


class User:
    def __init__(self, load: Load, heard: Heard, sound: list[str]) -> None:
        self._load, self._heard, self._sound = load, heard, sound
        self._silence = silence(load.piece_ms)
        # When the last word left; None once it is answered.
        self._asked_at: float | None = None

    async def run(self, delay_seconds: float) -> None:
        await asyncio.sleep(delay_seconds)
        audio = {"input": {"turn_detection": _DETECTIONS[self._load.detection]}}
        try:
            async with session(self._load.base_url, self._load.model, audio=audio) as socket:
                listening = asyncio.create_task(self._listen(socket))
                try:
                    await self._talk(socket)
                finally:
                    listening.cancel()
                    await asyncio.wait({listening})
        except (OSError, WebSocketException, RuntimeError):
            self._heard.lost += 1

    async def _talk(self, socket: ClientConnection) -> None:
        began, number, a_round = time.monotonic(), 0, round(ROUND_SECONDS * 1e3 / self._load.piece_ms)
        while time.monotonic() < self._load.counts_to:
            place = number % a_round
            await socket.send(self._sound[place] if place < len(self._sound) else self._silence)
            if place == len(self._sound):
                await self._end_turn(socket)
            number += 1
            wait = began + number * self._load.piece_ms / 1e3 - time.monotonic()
            if self._load.counts():
                self._heard.pieces += 1
                self._heard.late_pieces += wait < -self._load.piece_ms / 1e3
            await asyncio.sleep(max(wait, 0))

    async def _end_turn(self, socket: ClientConnection) -> None:
        self._asked_at = time.monotonic()
        if self._load.detection == "user":
            await socket.send(json.dumps({"type": "input_audio_buffer.commit"}))
            await socket.send(json.dumps({"type": "response.create"}))

    async def _listen(self, socket: ClientConnection) -> None:
        while True:
            head = (await socket.recv(decode=False))[:_HEAD_BYTES]
            if _SOUND in head and self._asked_at is not None:
                waited_seconds, self._asked_at = time.monotonic() - self._asked_at, None
                if self._load.counts():
                    self._heard.first_audio_ms.append(waited_seconds * 1e3)
            self._heard.answers += _DONE in head and self._load.counts()


async def play(load: Load, sessions: int, opening_seconds: float) -> Heard:
    """opening_seconds: over which they come, evenly."""
    heard, sound = Heard(), pieces(words(SAYS_SECONDS, 0), load.piece_ms)
    async with asyncio.TaskGroup() as tasks:
        for index in range(sessions):
            tasks.create_task(User(load, heard, sound).run(opening_seconds * index / sessions))
        await asyncio.sleep(load.counts_from - time.monotonic())
        first = time.process_time()
        await asyncio.sleep(load.counts_to - time.monotonic())
        heard.cpu_seconds = time.process_time() - first
    return heard


def main(
    base_url: Annotated[str, typer.Option()],
    model: Annotated[str, typer.Option()],
    detection: Annotated[str, typer.Option(help="Who says that a turn has ended: server or user.")],
    sessions: Annotated[int, typer.Option()],
    opening_seconds: Annotated[float, typer.Option(help="Over which the sessions are opened.")],
    piece_ms: Annotated[int, typer.Option(help="Of sound in each frame.")],
    counts_from: Annotated[float, typer.Option(help="On the monotonic clock.")],
    counts_to: Annotated[float, typer.Option(help="On the monotonic clock.")],
) -> None:
    load = Load(base_url, model, detection, piece_ms, counts_from, counts_to)
    print(json.dumps(asdict(asyncio.run(play(load, sessions, opening_seconds)))))


if __name__ == "__main__":
    typer.run(main)
