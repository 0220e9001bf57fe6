"""What a machine does with twice the turns that it can serve: who is let in is served as ever, others are told at once.

python benchmarks/overload.py                                   # finds the capacity, offers 1x of it, then 2x for 120 s
python benchmarks/overload.py --capacity 2.1 --seconds 30

Turns arrive by themselves (an open loop, Poisson), whoever is still being answered: that is what overload is. The
capacity is what eight clients get answered who ask again at once, and who hear no silence.
"""

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import httpx
import numpy as np
import typer

from antiphon.hosting.default_checkpoint import default_checkpoint
from services.command_line.answer_stream import AnswerFailedError, AnswerRefusedError, first_model
from services.command_line.bench.figures import Spread, TurnFigures
from services.command_line.bench.served_platform import served_platform
from services.command_line.bench.spoken_questions import SpokenQuestions
from services.command_line.bench.turn_client import Workload, run_turns, time_turn

_SHEDS: Final = {"ANTIPHON_GATEWAY_SHEDS_LOAD": "true"}
# What is kept up to a bound, kept to bounds that are reached in the first phase: what grows after it is a leak.
_SMALL_STORES: Final = {
    "ANTIPHON_THINKER_CACHE_ROWS": "16384",
    "ANTIPHON_TALKER_CACHE_ROWS": "16384",
    "ANTIPHON_ENCODERS_CACHE_BYTES": str(4 << 20),
}
_CLIENTS: Final = 8
# Of the memory's course.
_TOLD: Final = 13
_BUSY: Final = frozenset({429, 503})


@dataclass(slots=True)
class Phase:
    """What happened while turns were offered at one rate."""

    name: str
    per_second: float
    served: list[TurnFigures] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    # Seconds since the phase began, and bytes of the whole platform, which is one process.
    resident: list[tuple[float, float]] = field(default_factory=list)

    def row(self) -> str:
        audio = Spread.of([turn.first_audio_ms for turn in self.served])
        pace = Spread.of([turn.real_time_factor for turn in self.served])
        refused = f"{Spread.of(self.refused_ms).p95:.0f}" if self.refused_ms else "-"
        memory = " to ".join(f"{each / 1e6:.0f}" for _, each in (self.resident[0], self.resident[-1]))
        return (
            f"| {self.name} | {self.per_second:.2f} | {len(self.served)} | {len(self.refused_ms)} | "
            f"{sum(self.failed.values())} | {audio.p50:.0f} / {audio.p95:.0f} | {pace.p50:.2f} / {pace.p95:.2f} | "
            f"{refused} | {memory} | {self.growth():+.1f} |"
        )

    def growth(self) -> float:
        """MB a minute in the second half: by then, what is kept up to a bound should have reached it."""
        seconds, held = np.array(self.resident).T
        later = seconds >= seconds[-1] / 2
        return float(np.polyfit(seconds[later] / 60, held[later] / 1e6, 1)[0])

    def course(self) -> str:
        """Resident MB at so many moments of the phase."""
        seconds, held = np.array(self.resident).T
        return ", ".join(f"{each / 1e6:.0f}" for each in np.interp(np.linspace(0, seconds[-1], _TOLD), seconds, held))


_HEAD: Final = (
    "| | turns/s offered | served | refused | failed | first audio p50 / p95, ms | real-time factor p50 / p95 | "
    "refusal p95, ms | resident MB | its slope, MB/min |\n|---|---|---|---|---|---|---|---|---|---|"
)


async def offer(client: httpx.AsyncClient, bodies: "Bodies", phase: Phase, seconds: float) -> None:
    arrivals = random.Random(0)  # noqa: S311 - arrivals, not secrets
    began = time.monotonic()
    async with asyncio.TaskGroup() as turns:
        while (elapsed := time.monotonic() - began) < seconds:
            phase.resident.append((elapsed, await resident_bytes(client)))
            turns.create_task(_turn(client, bodies.next(), phase))
            await asyncio.sleep(arrivals.expovariate(phase.per_second))
    phase.resident.append((time.monotonic() - began, await resident_bytes(client)))


async def _turn(client: httpx.AsyncClient, body: Mapping[str, object], phase: Phase) -> None:
    began = time.perf_counter()
    try:
        phase.served.append(await time_turn(client, body))
    except AnswerRefusedError as error:
        if error.status not in _BUSY:
            phase.failed[str(error)] += 1
        else:
            phase.refused_ms.append((time.perf_counter() - began) * 1e3)
    except AnswerFailedError as error:
        phase.failed[str(error)] += 1


async def resident_bytes(client: httpx.AsyncClient) -> float:
    text = (await client.get("/metrics")).text
    line = next(line for line in text.splitlines() if line.startswith("process_resident_memory_bytes "))
    return float(line.split()[1])


@dataclass(slots=True)
class Bodies:
    """Questions made before the clock starts: making them is not what is measured."""

    made: list[Mapping[str, object]]
    taken: int = 0

    def next(self) -> Mapping[str, object]:
        self.taken += 1
        return self.made[(self.taken - 1) % len(self.made)]


async def measure(url: str, workload: Workload, capacity: float | None, seconds: float) -> list[Phase]:
    if capacity is None:
        figures, _ = await run_turns(url, workload, concurrency=_CLIENTS, turns=6 * _CLIENTS)
        capacity = figures.turns / figures.wall_seconds
        print(f"{_CLIENTS} clients: {capacity:.2f} turns/s, real-time factor {figures.real_time_factor.p50:.2f}")
    phases = [Phase("at capacity", capacity), Phase("twice that", 2 * capacity)]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        model = await first_model(client)
        bodies = Bodies([workload.body(number, model) for number in range(int(2.5 * capacity * seconds) + 1)])
        for phase in phases:
            await offer(client, bodies, phase, seconds)
    return phases


def main(
    seconds: Annotated[float, typer.Option(help="Of each phase.")] = 120.0,
    capacity: Annotated[float | None, typer.Option(help="Turns a second, instead of finding out.")] = None,
) -> None:
    with tempfile.TemporaryDirectory(prefix="antiphon-overload-") as folder:
        sound = default_checkpoint() / "examples" / "question.wav"
        workload = Workload(SpokenQuestions([sound], Path(folder)))
        with served_platform(default_checkpoint(), threads=1, variables={**_SMALL_STORES, **_SHEDS}) as url:
            phases = asyncio.run(measure(url, workload, capacity, seconds))
    print(_HEAD)
    for phase in phases:
        print(phase.row())
    at, above = (Spread.of([turn.first_audio_ms for turn in phase.served]).p95 for phase in phases)
    print(f"First audio p95 of those let in: {above / at:.2f} times that at capacity.")
    for phase in phases:
        print(f"Resident MB, {phase.name}: {phase.course()}.")
        for reason, count in phase.failed.items():
            print(f"{count} failed: {reason}")


if __name__ == "__main__":
    typer.run(main)
