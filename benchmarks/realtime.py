"""How soon a live session answers: from the end of the last word that a user says until the first sound of the answer.

python benchmarks/realtime.py                                    # nano, this machine: 1 and 8 sessions, 2 s and 20 s
python benchmarks/realtime.py --sessions 1 --seconds 20 --turns 8

Two platforms are measured in turns, round by round: one computes nothing before a turn has ended, the other prepares
what is being said and begins the answer at the pause. Words end where the recording's last word ends, not where the
server hears it; both wait for the same silence.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Annotated, Final

import httpx
import typer

from antiphon.hosting.default_checkpoint import default_checkpoint
from benchmarks.live_client import LiveTurn, session, speak, words
from services.command_line.answer_stream import first_model
from services.command_line.bench.figures import Spread
from services.command_line.bench.served_platform import served_platform

# Names of settings of live sessions, and what they are in each arm.
_ARMS: Final[Mapping[str, Mapping[str, str]]] = {
    "at the turn's end": {"ANTIPHON_REALTIME_PREPARES": "false", "ANTIPHON_REALTIME_SPECULATES": "false"},
    "prepared": {"ANTIPHON_REALTIME_PREPARES": "true", "ANTIPHON_REALTIME_SPECULATES": "false"},
    "prepared and begun at the pause": {
        "ANTIPHON_REALTIME_PREPARES": "true",
        "ANTIPHON_REALTIME_SPECULATES": "true",
    },
}
_SILENCE_MS: Final = 500
_INSTRUCTIONS: Final = "You are a helpful assistant. Answer in one short sentence."
# Between the beginnings of sessions that speak at one time.
_STAGGER_SECONDS: Final = 0.4


@dataclass(slots=True)
class Arm:
    name: str
    base_url: str
    turns: list[LiveTurn] = field(default_factory=list)

    @property
    def spread(self) -> Spread:
        return Spread.of([turn.first_audio_ms for turn in self.turns])


async def measure(arms: Sequence[Arm], sessions: int, seconds: float, rounds: int, numbers: "count[int]") -> None:
    """Each round asks every platform, with as many users at once."""
    for _ in range(rounds):
        for arm in arms:
            async with httpx.AsyncClient(base_url=arm.base_url) as client:
                model = await first_model(client)
            users = [_user(arm.base_url, model, seconds, next(numbers), index) for index in range(sessions)]
            arm.turns += await asyncio.gather(*users)


async def _user(base_url: str, model: str, seconds: float, number: int, index: int) -> LiveTurn:
    await asyncio.sleep(index * _STAGGER_SECONDS)
    detection = {"type": "server_vad", "silence_duration_ms": _SILENCE_MS}
    audio = {"input": {"turn_detection": detection}}
    async with session(base_url, model, instructions=_INSTRUCTIONS, audio=audio) as socket:
        return await speak(socket, words(seconds, number))


def speculative_turns(base_url: str) -> str:
    """Used and wasted, as the platform counts them."""
    text = httpx.get(f"{base_url}/metrics").text
    found = dict(re.findall(r'antiphon_speculative_turns_total\{outcome="(\w+)"\} ([\d.]+)', text))
    return f"{float(found.get('used', 0)):.0f} used, {float(found.get('wasted', 0)):.0f} wasted"


def _row(arm: Arm, first: Arm, sessions: int, seconds: float) -> str:
    spread, before = arm.spread, first.spread
    own = spread.p50 - _SILENCE_MS
    return (
        f"| {seconds:g} s | {sessions} | {arm.name} | {len(arm.turns)} | {spread.p50:.0f} | {spread.p95:.0f} | "
        f"{own:.0f} | {before.p50 / spread.p50:.2f} |"
    )


_HEAD: Final = (
    f"| said | sessions | computed | turns | p50, ms | p95, ms | p50 beyond {_SILENCE_MS} ms of silence | p50 of the "
    "first row, times |\n|---|---|---|---|---|---|---|---|"
)


def main(
    sessions: Annotated[str, typer.Option(help="At one time; several, separated by commas.")] = "1,8",
    seconds: Annotated[str, typer.Option(help="Of speech; several, separated by commas.")] = "2,20",
    turns: Annotated[int, typer.Option(help="Of each row, at least.")] = 8,
) -> None:
    numbers = count()
    with ExitStack() as stack:
        urls = {
            name: stack.enter_context(served_platform(default_checkpoint(), threads=1, variables=variables))
            for name, variables in _ARMS.items()
        }
        asyncio.run(measure([Arm(name, url) for name, url in urls.items()], 1, 2.0, 1, numbers))  # not counted
        print(_HEAD, flush=True)
        for length in map(float, seconds.split(",")):
            for users in map(int, sessions.split(",")):
                arms = [Arm(name, url) for name, url in urls.items()]
                asyncio.run(measure(arms, users, length, -(-turns // users), numbers))
                for arm in arms:
                    print(_row(arm, arms[0], users, length), flush=True)
        for name, url in urls.items():
            print(f"{name}: answers begun at a pause: {speculative_turns(url)}")


if __name__ == "__main__":
    typer.run(main)
