"""What live sessions cost the gateway alone: CPU time and memory of each, with so many at once.

python benchmarks/live_sessions.py                               # 10 and 200 sessions for 5 rounds, this machine
python benchmarks/live_sessions.py --sessions 10 --rounds 10 --piece-ms 20
python benchmarks/live_sessions.py --gateways 2                  # the sessions dealt out to two processes
python benchmarks/live_sessions.py --keeps                       # kept in a Redis that ends with the benchmark

The gateway is a process of its own before scripted stages (`scripted_gateway.py`), which answer at once and compute
nothing; its users are played by others (`live_load.py`). Every microphone is open all the time: of each round of 6 s a
user says 1.8 s, is silent, and is answered for 2 s. Once the server hears when he has ended, once he says so himself;
the difference is what hearing it costs. What is told is the CPU time of the gateway's process, which is valid beside
whatever else runs, as long as the gateway keeps up: as long as turns are answered, and in time.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer

from antiphon.hosting.free_port import free_port
from benchmarks.chaos_clusters import redis_server
from benchmarks.live_load import ROUND_SECONDS, Heard
from benchmarks.process_usage import Usage
from services.command_line.bench.figures import Spread

# One process of users; more would be what is waited for.
_MOST_PLAYED: Final = 100
_START_SECONDS: Final = 60.0
# Sessions are opened at this pace, and then go on for so long before anything counts.
_OPENED_A_SECOND: Final = 20.0
_SETTLE_SECONDS: Final = 2 * ROUND_SECONDS
# It keeps up: nearly all turns are answered, nearly all of them within so long after the last word (500 ms of it are
# the silence that ends a turn).
_ANSWERED_SHARE: Final = 0.95
_FIRST_AUDIO_MS: Final = 1500.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the gateways' processes, for one session. cpu_ms: in each second; users_share: of a core, of all users."""

    cpu_ms: float
    resident_kib: float
    sessions: int
    lost: int
    answered_share: float
    late_share: float
    first_audio: Spread
    users_share: float

    @property
    def keeps_up(self) -> bool:
        return not self.lost and self.answered_share >= _ANSWERED_SHARE and self.first_audio.p95 <= _FIRST_AUDIO_MS

    def row(self) -> str:
        a_core = f"{1000 / self.cpu_ms:.0f}" if self.keeps_up else "- (does not keep up)"
        return (
            f"{self.cpu_ms:.1f} | {a_core} | {self.cpu_ms * self.sessions / 10:.0f} % | {self.resident_kib:.0f} | "
            f"{100 * self.answered_share:.0f} % | {self.lost} | "
            f"{self.first_audio.p50:.0f} / {self.first_audio.p95:.0f} | {100 * self.late_share:.1f} % | "
            f"{100 * self.users_share:.0f} %"
        )


@contextmanager
def scripted_gateway(variables: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Its URL and its process."""
    port = free_port("127.0.0.1")
    command = [sys.executable, "benchmarks/scripted_gateway.py", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, **variables})
    try:
        base_url = f"http://127.0.0.1:{port}"
        _wait_until_ready(base_url)
        yield base_url, process.pid
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


def _users(arguments: Mapping[str, object]) -> "subprocess.Popen[str]":
    named = [word for name, value in arguments.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "benchmarks/live_load.py", *named]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _heard(processes: list["subprocess.Popen[str]"]) -> list[Heard]:
    told = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("Users' sessions failed; what was said of them stands above.")
    return [Heard(**json.loads(text)) for text in told]


def run(gateways: Mapping[str, int], sessions: int, seconds: float, detection: str, piece_ms: int) -> Cost:
    """gateways: their URLs and processes."""
    model = httpx.get(f"{next(iter(gateways))}/v1/models").json()["data"][0]["id"]
    told: dict[str, object] = {"model": model, "detection": detection, "piece_ms": piece_ms}
    for base_url in gateways:
        _warm(told | {"base_url": base_url})
    before, opening_seconds = _used(gateways), max(ROUND_SECONDS, sessions / _OPENED_A_SECOND)
    begin = time.monotonic() + opening_seconds + _SETTLE_SECONDS
    told |= {"counts_from": begin, "counts_to": begin + seconds, "opening_seconds": opening_seconds}
    users = [
        _users(told | {"base_url": base_url, "sessions": count})
        for base_url, share in zip(gateways, _dealt(sessions, len(gateways)), strict=True)
        for count in _dealt(share, -(-share // _MOST_PLAYED))
    ]
    time.sleep(begin - time.monotonic())
    began, first = time.monotonic(), _used(gateways)
    time.sleep(begin + seconds - time.monotonic())
    wall, last = time.monotonic() - began, _used(gateways)
    heard = _heard(users)
    spent = last.cpu_seconds - first.cpu_seconds
    return Cost(
        cpu_ms=spent * 1e3 / wall / sessions,
        resident_kib=(last.resident_bytes - before.resident_bytes) / sessions / 1024,
        sessions=sessions,
        lost=sum(each.lost for each in heard),
        answered_share=sum(each.answers for each in heard) / (sessions * wall / ROUND_SECONDS),
        late_share=sum(each.late_pieces for each in heard) / max(1, sum(each.pieces for each in heard)),
        first_audio=Spread.of([ms for each in heard for ms in each.first_audio_ms] or [float("inf")]),
        users_share=sum(each.cpu_seconds for each in heard) / wall,
    )


def _dealt(sessions: int, hands: int) -> list[int]:
    """As evenly as can be."""
    return [sessions * (hand + 1) // hands - sessions * hand // hands for hand in range(hands)]


def _used(gateways: Mapping[str, int]) -> Usage:
    of_each = [Usage.of(process) for process in gateways.values()]
    return Usage(sum(each.cpu_seconds for each in of_each), sum(each.resident_bytes for each in of_each))


def _warm(told: Mapping[str, object]) -> None:
    """What the first session loads is not its own."""
    now = time.monotonic()
    times = {"counts_from": now + 1, "counts_to": now + 1 + ROUND_SECONDS, "opening_seconds": 1.0}
    _heard([_users({**told, **times, "sessions": 2})])


_HEAD: Final = (
    "| sessions | who hears the end | ms of CPU a session and second | sessions a core | the gateways' core | "
    "KiB a session | answered | lost | first audio p50 / p95, ms | pieces sent late | users' core |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)
_NAMES: Final = {"server": "the server", "user": "the user himself"}


def main(
    sessions: Annotated[str, typer.Option(help="At one time; several, separated by commas.")] = "10,200",
    rounds: Annotated[int, typer.Option(help="Measured, after the sessions were opened and two rounds.")] = 5,
    piece_ms: Annotated[int, typer.Option(help="Of sound in each frame of a user.")] = 40,
    gateways: Annotated[int, typer.Option(min=1, help="Processes, among which sessions are dealt out.")] = 1,
    keeps: Annotated[bool, typer.Option(help="Sessions are kept, in a Redis that ends with this.")] = False,
) -> None:
    with ExitStack() as stack:
        variables = {"ANTIPHON_LOG_LEVEL": "WARNING"}
        if keeps:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            variables["ANTIPHON_REDIS_URL"] = stack.enter_context(redis_server(Path(folder)))
        print(_HEAD, flush=True)
        for count in map(int, sessions.split(",")):
            for detection, name in _NAMES.items():
                with ExitStack() as each:
                    served = dict(each.enter_context(scripted_gateway(variables)) for _ in range(gateways))
                    cost = run(served, count, rounds * ROUND_SECONDS, detection, piece_ms)
                print(f"| {count} | {name} | {cost.row()} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
