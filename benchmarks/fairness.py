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
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Final

import httpx
import numpy as np
import typer

from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.telemetry.names import FIRST_PACKET_PARTS
from benchmarks.chaos_clusters import redis_server
from benchmarks.crowd import Crowd, Crowds, crowds
from services.command_line.answer_stream import AnswerRefusedError, first_model
from services.command_line.bench.figures import Spread
from services.command_line.bench.served_platform import served_platform
from services.command_line.bench.spoken_questions import SpokenQuestions
from services.command_line.bench.turn_client import Workload, time_turn

_CALM_CLIENTS: Final = 4
# Between a quiet client's turns.
_PAUSE_SECONDS: Final = 0.3
# Until the others are what they are.
_SETTLING_SECONDS: Final = 4.0
_QUESTIONS: Final = 48
_DRAWS: Final = 2000


def make_key(tenant: str, variables: Mapping[str, str]) -> str:
    command = [sys.executable, "-m", "services.command_line", "keys", "create", "--tenant", tenant]
    return subprocess.check_output(command, env={**os.environ, **variables}, text=True).split()[-1]


@dataclass(slots=True)
class Condition:
    """Who is there with how many clients, and what the quiet one heard meanwhile."""

    name: str
    clients: int
    key: str
    first_audio_ms: list[float] = field(default_factory=list)
    parts_ms: list[Mapping[str, float]] = field(default_factory=list)
    refused: int = 0
    turns: int = 0

    def row(self) -> str:
        heard = Spread.of(self.first_audio_ms) if self.first_audio_ms else None
        spread = "-" if heard is None else f"{heard.p50:.0f} / {heard.p95:.0f}"
        counts = f"{len(self.first_audio_ms)} | {self.refused} | {self.turns}"
        return f"| {self.name} | {self.clients} | {counts} | {spread} | {self._parts()} |"

    def _parts(self) -> str:
        """Means, so that they add up to the mean."""
        if not self.parts_ms:
            return "-"
        return ", ".join(f"{part} {np.mean([each[part] for each in self.parts_ms]):.0f}" for part in FIRST_PACKET_PARTS)


@dataclass(frozen=True, slots=True)
class Platform:
    url: str
    bodies: Sequence[dict[str, object]]
    crowds: Crowds

    def under(self, condition: Condition, quiet_key: str, turns: int) -> None:
        asking = self.crowds.ask(Crowd(self.url, condition.key, condition.clients, self.bodies))
        time.sleep(_SETTLING_SECONDS)
        asyncio.run(self._listen(quiet_key, turns, condition))
        condition.turns += asking.end().turns

    async def _listen(self, key: str, turns: int, condition: Condition) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=self.url, timeout=120, headers=headers) as client:
            for number in range(turns):
                await asyncio.sleep(_PAUSE_SECONDS)
                try:
                    turn = await time_turn(client, self.bodies[number % len(self.bodies)])
                except AnswerRefusedError:
                    condition.refused += 1
                else:
                    condition.first_audio_ms.append(turn.first_audio_ms)
                    condition.parts_ms.append(turn.first_packet_ms)


def moved(calm: Sequence[float], flooded: Sequence[float]) -> str:
    """How far the flood moves the 95th percentile, and within what four in five draws of the same turns would tell."""
    dice = np.random.default_rng(0)

    def drawn(values: Sequence[float]) -> float:
        return float(np.percentile(dice.choice(values, len(values)), 95))

    ratio = Spread.of(flooded).p95 / Spread.of(calm).p95
    low, high = np.percentile([drawn(flooded) / drawn(calm) for _ in range(_DRAWS)], [10, 90])
    return f"{100 * (ratio - 1):+.0f} % ({100 * (low - 1):+.0f} to {100 * (high - 1):+.0f} %)"


async def questions(url: str, workload: Workload, key: str) -> list[dict[str, object]]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, timeout=120, headers=headers) as client:
        model = await first_model(client)
        return [dict(workload.body(number, model)) for number in range(_QUESTIONS)]


def main(
    flood: Annotated[int, typer.Option(min=1, help="Clients that ask again at once.")] = 24,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    turns: Annotated[int, typer.Option(min=2, help="Of the quiet client in each round.")] = 15,
    same: Annotated[bool, typer.Option(help="Also the flood of the quiet client's own tenant.")] = True,
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="antiphon-fairness-") as name,
        redis_server(Path(name)) as redis,
        crowds() as others,
    ):
        variables = {"ANTIPHON_REDIS_URL": redis, "ANTIPHON_KEY_PEPPER": os.urandom(32).hex()}
        variables["ANTIPHON_GATEWAY_SHEDS_LOAD"] = "true"
        quiet, other = make_key("quiet", variables), make_key("flood", variables)
        conditions = [
            Condition("calm", _CALM_CLIENTS, other),
            Condition("flood of another tenant", flood, other),
            *([Condition("flood of the same tenant", flood, quiet)] if same else []),
        ]
        sound = default_checkpoint() / "examples" / "question.wav"
        workload = Workload(SpokenQuestions([sound], Path(name)))
        with served_platform(default_checkpoint(), threads=1, variables=variables) as url:
            platform = Platform(url, asyncio.run(questions(url, workload, quiet)), others)
            for _, condition in product(range(rounds), conditions):
                platform.under(condition, quiet, turns)
    print(
        "| beside the quiet client | clients | heard | refused | their turns | first audio p50 / p95, ms | mean parts |"
    )
    print("|---|---|---|---|---|---|---|")
    for condition in conditions:
        print(condition.row())
    calm, flooded = (each.first_audio_ms for each in conditions[:2])
    print(f"The flood moves the quiet tenant's p95 by {moved(calm, flooded)}.")


if __name__ == "__main__":
    typer.run(main)
