"""What live sessions cost the gateway alone: CPU time and memory of each, with so many at once.

python benchmarks/live_sessions.py                               # 10 and 200 sessions for 20 s, this machine
python benchmarks/live_sessions.py --sessions 10 --seconds 60

The gateway is a process of its own before scripted stages (`scripted_gateway.py`), which answer at once and compute
nothing. Every user's microphone is open all the time: he says 2 s, is silent for 1 s, is answered for 2 s, and so on.
Once the server hears when he has ended, once he says so himself; the difference is what hearing it costs.
"""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

import httpx
import typer
from websockets.asyncio.client import ClientConnection

from antiphon.hosting.free_port import free_port
from benchmarks.live_client import PIECE_MS, SILENCE, pieces, session, speak, words
from services.command_line.answer_stream import first_model

_SAYS_SECONDS: Final = 2.0
_ROUND_SECONDS: Final = 5.0
_START_SECONDS: Final = 60.0
_SERVED_SHARE: Final = 0.9
_MODES: Final = {"the server": {"type": "server_vad", "silence_duration_ms": 500}, "the user himself": None}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the gateway's process."""

    cpu_seconds: float
    resident_bytes: float


@dataclass(slots=True)
class Users:
    """What became of all users of one run."""

    answers: int = 0
    late_pieces: int = 0
    pieces: int = 0


@contextmanager
def scripted_gateway() -> Iterator[str]:
    port = free_port("127.0.0.1")
    command = [sys.executable, "benchmarks/scripted_gateway.py", "--port", str(port)]
    process = subprocess.Popen(command)
    try:
        base_url = f"http://127.0.0.1:{port}"
        _wait_until_ready(base_url)
        yield base_url
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_ready(base_url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{base_url}/healthz").status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise RuntimeError(f"The gateway was not ready after {_START_SECONDS:.0f} s.")


async def cost(client: httpx.AsyncClient) -> Cost:
    text = (await client.get("/metrics", timeout=60)).text
    return Cost(_value(text, "process_cpu_seconds_total"), _value(text, "process_resident_memory_bytes"))


def _value(text: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"Expected {name} among the gateway's metrics.")
    return float(found[1])


async def run(base_url: str, sessions: int, seconds: float, detection: dict[str, Any] | None) -> str:
    """One row of the table, without its heading columns."""
    users = Users()
    async with httpx.AsyncClient(base_url=base_url) as client:
        model = await first_model(client)
        async with session(base_url, model) as socket:  # what the first one loads is not its own
            await speak(socket, words(_SAYS_SECONDS, 0))
        before, sound = await cost(client), pieces(words(_SAYS_SECONDS, 0))
        async with asyncio.TaskGroup() as tasks:
            talking = [tasks.create_task(_user(base_url, model, i, sound, detection, users)) for i in range(sessions)]
            await asyncio.sleep(2 * _ROUND_SECONDS)
            began, first = time.perf_counter(), await cost(client)
            counted = users.answers
            await asyncio.sleep(seconds)
            last, wall = await cost(client), time.perf_counter() - began
            counted = users.answers - counted
            for task in talking:
                task.cancel()
    cpu_ms = (last.cpu_seconds - first.cpu_seconds) * 1e3 / wall
    expected = sessions * wall / _ROUND_SECONDS
    grown = (last.resident_bytes - before.resident_bytes) / sessions / 1e6
    # Who is not answered costs little.
    a_core = f"{1000 * sessions / cpu_ms:.0f}" if counted > _SERVED_SHARE * expected else "-"
    return (
        f"{cpu_ms / 10:.0f} % | {cpu_ms / sessions:.1f} | {a_core} | {grown:.2f} | "
        f"{100 * counted / expected:.0f} % | {100 * users.late_pieces / max(users.pieces, 1):.1f} %"
    )


async def _user(
    base_url: str, model: str, index: int, sound: list[str], detection: dict[str, Any] | None, users: Users
) -> None:
    await asyncio.sleep(_ROUND_SECONDS * (index % 50) / 50)
    audio = {"input": {"turn_detection": detection}}
    async with session(base_url, model, audio=audio) as socket, asyncio.TaskGroup() as tasks:
        tasks.create_task(_listen(socket, users))
        await _talk(socket, sound, users, says_end=detection is None)


async def _talk(socket: ClientConnection, sound: list[str], users: Users, *, says_end: bool) -> None:
    began, number, a_round = time.perf_counter(), 0, round(_ROUND_SECONDS * 1e3 / PIECE_MS)
    while True:
        place = number % a_round
        await socket.send(sound[place] if place < len(sound) else SILENCE)
        if says_end and place == len(sound):
            await socket.send(json.dumps({"type": "input_audio_buffer.commit"}))
            await socket.send(json.dumps({"type": "response.create"}))
        number += 1
        wait = began + number * PIECE_MS / 1e3 - time.perf_counter()
        users.pieces += 1
        users.late_pieces += wait < -PIECE_MS / 1e3
        await asyncio.sleep(max(wait, 0))


async def _listen(socket: ClientConnection, users: Users) -> None:
    async for frame in socket:
        users.answers += '"type":"response.done"' in str(frame[:64])


_HEAD: Final = (
    "| sessions | who hears the end | CPU of the gateway | ms of CPU a session and second | sessions a core | "
    "MB a session | answered | pieces sent late |\n|---|---|---|---|---|---|---|---|"
)


def main(
    sessions: Annotated[str, typer.Option(help="At one time; several, separated by commas.")] = "10,200",
    seconds: Annotated[float, typer.Option(help="Measured, after 10 s that are not.")] = 20.0,
) -> None:
    print(_HEAD, flush=True)
    for count in map(int, sessions.split(",")):
        for name, detection in _MODES.items():
            with scripted_gateway() as base_url:
                figures = asyncio.run(run(base_url, count, seconds, detection))
            print(f"| {count} | {name} | {figures} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
