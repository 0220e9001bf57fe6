"""Turns while replicas are killed: how many fail, whether any sample changes, and for how long listeners hear nothing.

python benchmarks/chaos.py             # 200 turns over two processes of each service, one of them killed every 5 turns
python benchmarks/chaos.py --on ray    # the same over Ray Serve's replicas

Every turn is compared with the same turn before anything was killed: its text, and its sound sample by sample. A client
whose gateway is gone asks another one for the rest of its answer, by the id of the last event that it has.
"""

import asyncio
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import typer

from antiphon.hosting.default_checkpoint import default_checkpoint
from benchmarks.chaos_clusters import GATEWAY, STAGES, Cluster, ProcessCluster, RayCluster, redis_server
from benchmarks.chaos_listeners import QUESTIONS, Heard, Listener
from services.command_line.bench.figures import Spread


class Kind(StrEnum):
    PROCESSES = "processes"
    RAY = "ray"


@dataclass(frozen=True)
class Plan:
    turns: int = 200
    at_once: int = 2
    # Turns between two kills.
    every: int = 5
    services: Sequence[str] = (*STAGES, GATEWAY)
    # The next is killed only when all are there again; otherwise, when all of its own service are.
    calm: bool = True
    # SIGTERM lets a process end what it does.
    by: signal.Signals = signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Kill:
    service: str
    # Of `time.monotonic`.
    moment: float


@dataclass(slots=True)
class Tally:
    heard: list[Heard] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    def compare(self, number: int, heard: Heard, whole: Heard) -> None:
        self.heard.append(heard)
        ours, theirs = heard.samples(), whole.samples()
        if heard.text != whole.text or not np.array_equal(ours, theirs):
            common = min(len(ours), len(theirs))
            others = int((ours[:common] != theirs[:common]).sum())
            self.different.append(
                f"turn {number}: {len(ours)} samples instead of {len(theirs)}, {others} of them others, {heard.text!r}"
            )

    def report(self) -> str:
        broken, refused = sum(each.breaks > 0 for each in self.heard), sum(each.refusals > 0 for each in self.heard)
        lines = [
            f"{len(self.heard)} turns, {len(self.failed)} failed, {len(self.different)} different; "
            f"{len(self.kills)} kills; {broken} streams broke and went on at another gateway, {refused} began when "
            "asked for again.",
            f"All turns: {_worst(self.heard)}.",
            f"Turns that nothing befell: {_worst(self._struck_by(None))}.",
        ]
        for service, count in sorted(Counter(kill.service for kill in self.kills).items()):
            lines.append(f"{service}, killed {count} times: {_worst(self._struck_by(service))}.")
        return "\n".join([*lines, *self.failed, *self.different])

    def _struck_by(self, service: str | None) -> list[Heard]:
        """Turns in whose time one of a service was killed; None: nobody was."""

        def struck(heard: Heard) -> set[str | None]:
            return {kill.service for kill in self.kills if heard.began <= kill.moment <= heard.ended} or {None}

        return [heard for heard in self.heard if service in struck(heard)]


def _worst(turns: Sequence[Heard]) -> str:
    if not turns:
        return "no turn"
    silence = Spread.of([each.longest_silence_seconds for each in turns])
    most, gap = max(each.longest_silence_seconds for each in turns), max(each.longest_gap_seconds for each in turns)
    in_all = Spread.of([each.playback.silent_seconds for each in turns])
    return (
        f"{len(turns)} turns, longest silence {silence.p50 * 1e3:.0f} ms (p50), {silence.p95 * 1e3:.0f} ms (p95), "
        f"{most * 1e3:.0f} ms (most), silent in all {in_all.p50 * 1e3:.0f} ms (p50), {in_all.p95 * 1e3:.0f} ms (p95), "
        f"longest time between two packets {gap * 1e3:.0f} ms"
    )


@dataclass(slots=True)
class Chaos:
    cluster: Cluster
    client: httpx.AsyncClient
    model: str
    wholes: list[Heard] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    async def learn(self) -> None:
        """What every question is answered while nobody is killed."""
        for number in range(len(QUESTIONS)):
            self.wholes.append(await self._listener().ask(number))

    async def run(self, plan: Plan) -> None:
        numbers, is_over = iter(range(plan.turns)), asyncio.Event()
        killing = asyncio.create_task(self._kill(plan, is_over))
        try:
            async with asyncio.TaskGroup() as listeners:
                for _ in range(plan.at_once):
                    listeners.create_task(self._listen(numbers))
        finally:
            is_over.set()
            await killing

    async def _listen(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            try:
                heard = await self._listener().ask(number)
            except (httpx.HTTPError, RuntimeError) as error:
                self.tally.failed.append(f"turn {number} failed: {type(error).__name__}: {error}")
            else:
                self.tally.compare(number, heard, self.wholes[number % len(QUESTIONS)])

    async def _kill(self, plan: Plan, is_over: asyncio.Event) -> None:
        """Somewhere within a turn; each service once before any comes twice."""
        dice, killed_at, left = random.Random(0), 0, list[str]()  # noqa: S311 - chaos, not secrets
        while not is_over.is_set():
            await asyncio.sleep(dice.uniform(0.02, 0.4))
            over = len(self.tally.heard) + len(self.tally.failed)
            if over < killed_at + plan.every:
                continue
            left = left or dice.sample(plan.services, len(plan.services))
            service, killed_at = left.pop(), over
            await asyncio.to_thread(self.cluster.wait_for, plan.services if plan.calm else (service,))
            self.tally.kills.append(Kill(service, time.monotonic()))
            await asyncio.to_thread(self.cluster.kill_one, service, plan.by)

    def _listener(self) -> Listener:
        return Listener(self.cluster.urls, self.client, self.model)


@asynccontextmanager
async def running(kind: Kind, folder: Path) -> AsyncIterator[Cluster]:
    if kind is Kind.PROCESSES:
        cluster = ProcessCluster(folder)
        with cluster.running():
            yield cluster
        return
    from services.on_ray import RaySettings, ray_platform

    replicas = 2
    with redis_server(folder) as redis_url:
        os.environ["ANTIPHON_REDIS_URL"] = redis_url  # Ray gives it to whom it starts
        async with ray_platform(RaySettings(default_checkpoint(), port=0, replicas=replicas)) as url:
            yield RayCluster(url, replicas)


async def chaos(kind: Kind, plan: Plan) -> Tally:
    with tempfile.TemporaryDirectory(prefix="antiphon-chaos-") as folder:
        async with running(kind, Path(folder)) as cluster, httpx.AsyncClient(timeout=60) as client:
            await asyncio.to_thread(cluster.wait_for, (*STAGES, GATEWAY))
            model = (await client.get(f"{cluster.urls[0]}/v1/models")).json()["data"][0]["id"]
            subject = Chaos(cluster, client, model)
            await subject.learn()
            await subject.run(plan)
            return subject.tally


def main(
    on: Annotated[Kind, typer.Option()] = Kind.PROCESSES,
    turns: Annotated[int, typer.Option(min=1)] = Plan.turns,
    at_once: Annotated[int, typer.Option(min=1)] = Plan.at_once,
    every: Annotated[int, typer.Option(min=1, help="Turns between two kills.")] = Plan.every,
    services: Annotated[str, typer.Option(help="Who may be killed.")] = ",".join(Plan.services),
    calm: Annotated[bool, typer.Option(help="Kills the next only when all are there again.")] = Plan.calm,
    by: Annotated[str, typer.Option(help="SIGKILL, or SIGTERM for a rolling restart.")] = Plan.by.name,
) -> None:
    plan = Plan(turns, at_once, every, services.split(","), calm, signal.Signals[by])
    tally = asyncio.run(chaos(on, plan))
    print(tally.report())
    raise typer.Exit(bool(tally.failed or tally.different))


if __name__ == "__main__":
    typer.run(main)
