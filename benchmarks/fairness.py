"""What one tenant's flood does to another's first sound; needs the program redis-server, which keeps the tenants' keys.

python benchmarks/fairness.py                                     # 24 clients of one tenant beside 1 of another
python benchmarks/fairness.py --flood 48 --rounds 4

Rounds alternate: the other tenant has its half of the clients whom two cores serve in time with nano (8), then the
flood; then the flood again, but of the same tenant, which is what no fairness would be like. What is told is the quiet
tenant's first sound.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer

from antiphon.hosting.default_checkpoint import default_checkpoint
from benchmarks.chaos_clusters import redis_server
from services.command_line.answer_stream import AnswerRefusedError, first_model
from services.command_line.bench.figures import Spread
from services.command_line.bench.served_platform import served_platform
from services.command_line.bench.spoken_questions import SpokenQuestions
from services.command_line.bench.turn_client import Workload, time_turn

_CALM_CLIENTS: Final = 4
# Between a quiet client's turns, and before a refused one tries again.
_PAUSE_SECONDS: Final = 0.3


def make_key(tenant: str, variables: Mapping[str, str]) -> str:
    command = [sys.executable, "-m", "services.command_line", "keys", "create", "--tenant", tenant]
    return subprocess.check_output(command, env={**os.environ, **variables}, text=True).split()[-1]


@dataclass(slots=True)
class Condition:
    """Who floods, with how many clients, and what the quiet one heard meanwhile."""

    name: str
    clients: int
    key: str
    first_audio_ms: list[float] = field(default_factory=list)
    refused: int = 0
    flood_turns: int = 0

    def row(self) -> str:
        heard = Spread.of(self.first_audio_ms) if self.first_audio_ms else None
        spread = "-" if heard is None else f"{heard.p50:.0f} / {heard.p95:.0f}"
        counts = f"{len(self.first_audio_ms)} | {self.refused} | {self.flood_turns}"
        return f"| {self.name} | {self.clients} | {counts} | {spread} |"


@dataclass(frozen=True, slots=True)
class Platform:
    url: str
    workload: Workload
    numbers: Iterator[int]

    async def listen(self, key: str, turns: int, condition: Condition) -> None:
        async with self._client(key) as client:
            model = await first_model(client)
            for _ in range(turns):
                await asyncio.sleep(_PAUSE_SECONDS)
                try:
                    turn = await time_turn(client, self.workload.body(next(self.numbers), model))
                    condition.first_audio_ms.append(turn.first_audio_ms)
                except AnswerRefusedError:
                    condition.refused += 1

    async def flood(self, condition: Condition) -> None:
        """Until it is cancelled."""
        async with self._client(condition.key) as client:
            model = await first_model(client)
            while True:
                try:
                    await time_turn(client, self.workload.body(next(self.numbers), model))
                    condition.flood_turns += 1
                except AnswerRefusedError:
                    await asyncio.sleep(_PAUSE_SECONDS)

    async def under(self, condition: Condition, quiet_key: str, turns: int) -> None:
        floods = [asyncio.create_task(self.flood(condition)) for _ in range(condition.clients)]
        try:
            await asyncio.sleep(5)  # until the flood is what it is
            await self.listen(quiet_key, turns, condition)
        finally:
            for each in floods:
                each.cancel()
            await asyncio.gather(*floods, return_exceptions=True)

    def _client(self, key: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=120, headers={"Authorization": f"Bearer {key}"})


async def measure(platform: Platform, quiet_key: str, conditions: list[Condition], rounds: int, turns: int) -> None:
    for _ in range(rounds):
        for condition in conditions:
            await platform.under(condition, quiet_key, turns)


def main(
    flood: Annotated[int, typer.Option(min=1, help="Clients that ask again at once.")] = 24,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    turns: Annotated[int, typer.Option(min=2, help="Of the quiet client in each round.")] = 15,
) -> None:
    with tempfile.TemporaryDirectory(prefix="antiphon-fairness-") as name, redis_server(Path(name)) as redis:
        variables = {"ANTIPHON_REDIS_URL": redis, "ANTIPHON_KEY_PEPPER": os.urandom(32).hex()}
        variables["ANTIPHON_GATEWAY_SHEDS_LOAD"] = "true"
        quiet, other = make_key("quiet", variables), make_key("flood", variables)
        conditions = [
            Condition("calm", _CALM_CLIENTS, other),
            Condition("flood of another tenant", flood, other),
            Condition("flood of the same tenant", flood, quiet),
        ]
        sound = default_checkpoint() / "examples" / "question.wav"
        workload = Workload(SpokenQuestions([sound], Path(name)))
        with served_platform(default_checkpoint(), threads=1, variables=variables) as url:
            asyncio.run(measure(Platform(url, workload, count()), quiet, conditions, rounds, turns))
    print("| beside the quiet client | its clients | heard | refused | its turns | first audio p50 / p95, ms |")
    print("|---|---|---|---|---|---|")
    for condition in conditions:
        print(condition.row())
    calm, flooded = (Spread.of(each.first_audio_ms).p95 for each in conditions[:2])
    print(f"The flood moves the quiet tenant's p95 by {100 * (flooded / calm - 1):+.0f} %.")


if __name__ == "__main__":
    typer.run(main)
