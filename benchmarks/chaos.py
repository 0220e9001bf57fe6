"""Turns while replicas are killed: how many fail, whether any sample changes, and for how long listeners hear nothing.

python benchmarks/chaos.py             # 200 turns over two processes of each service, one of them killed every 5 turns
python benchmarks/chaos.py --on ray    # the same over Ray Serve's replicas

Every turn is compared with the same turn before anything was killed. Sound may differ by one step of 65,536: how many
frames are decoded together depends on time in any turn, and another order of sums rounds otherwise. A client whose
gateway is gone asks another one for the rest of its answer, by the id of the last event that it has.
"""

import asyncio
import base64
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final

import httpx
import numpy as np
import typer
from numpy.typing import NDArray

from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.telemetry.playback import Playback
from benchmarks.chaos_clusters import STAGES, Cluster, ProcessCluster, RayCluster
from services.command_line.bench.figures import Spread

_QUESTIONS: Final = (
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


class Kind(StrEnum):
    PROCESSES = "processes"
    RAY = "ray"


@dataclass(slots=True)
class Heard:
    text: str = ""
    pcm: bytearray = field(default_factory=bytearray)
    moments: list[float] = field(default_factory=list)
    playback: Playback = field(default_factory=Playback)
    answer_id: str = ""
    event_id: str = ""
    is_over: bool = False
    resumptions: int = 0

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
            self.playback.deliver(len(piece) // 2, self.moments[-1])


@dataclass(slots=True)
class Listener:
    """Asks one gateway after the other until it has the whole answer."""

    cluster: Cluster
    client: httpx.AsyncClient
    model: str
    gateway: int = 0

    async def ask(self, number: int) -> Heard:
        heard, until = Heard(), time.monotonic() + _PATIENCE_SECONDS
        while not heard.is_over:
            try:
                await self._read(number, heard)
            except httpx.TransportError:
                heard.resumptions += 1
                self.gateway += 1
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.05)
        return heard

    async def _read(self, number: int, heard: Heard) -> None:
        url = self.cluster.urls[(number + self.gateway) % len(self.cluster.urls)]
        if heard.answer_id:
            path, headers = f"{url}{_CHAT}/{heard.answer_id}/events", {"Last-Event-ID": heard.event_id}
            asking = self.client.stream("GET", path, headers=headers)
        else:
            asking = self.client.stream("POST", url + _CHAT, json=self._body(number))
        async with asking as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    raise RuntimeError(f"{response.status_code}: {response.text[:300]}")
                raise httpx.ReadError("busy")
            async for line in response.aiter_lines():
                heard.read(line)
        if not heard.is_over:
            raise httpx.ReadError("the stream ended early")

    def _body(self, number: int) -> dict[str, object]:
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": _QUESTIONS[number % len(_QUESTIONS)]}],
            "modalities": ["text", "audio"],
            "audio": {"voice": "ethan", "format": "pcm16"},
            "temperature": 0,
            "seed": number % len(_QUESTIONS),
            "max_completion_tokens": 48,
            "stream": True,
        }


@dataclass(slots=True)
class Tally:
    heard: list[Heard] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)

    def compare(self, number: int, heard: Heard, whole: Heard) -> None:
        self.heard.append(heard)
        ours, theirs = heard.samples(), whole.samples()
        if heard.text != whole.text or len(ours) != len(theirs) or np.abs(ours - theirs).max(initial=0) > 1:
            self.different.append(f"turn {number}: {len(ours)} samples instead of {len(theirs)}, {heard.text!r}")

    def report(self) -> str:
        silent = Spread.of([each.playback.silent_seconds for each in self.heard])
        most = max(each.playback.silent_seconds for each in self.heard)
        gap = max(each.longest_gap_seconds for each in self.heard)
        resumed = sum(each.resumptions > 0 for each in self.heard)
        lines = [
            f"{len(self.heard)} turns, {len(self.failed)} failed, {len(self.different)} different; "
            f"killed: {', '.join(f'{name} {count}' for name, count in sorted(self.kills.items()))}; "
            f"{resumed} turns asked another gateway for their rest.",
            f"A listener heard nothing for {silent.p50 * 1e3:.0f} ms (p50), {silent.p95 * 1e3:.0f} ms (p95), "
            f"{most * 1e3:.0f} ms (most); the longest time between two packets was {gap * 1e3:.0f} ms.",
        ]
        return "\n".join([*lines, *self.failed, *self.different])


@dataclass(slots=True)
class Chaos:
    cluster: Cluster
    client: httpx.AsyncClient
    model: str
    wholes: list[Heard] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    async def learn(self) -> None:
        """What every question is answered while nobody is killed."""
        for number in range(len(_QUESTIONS)):
            self.wholes.append(await self._listener().ask(number))

    async def run(self, turns: int, at_once: int, every: int, services: Sequence[str]) -> None:
        numbers = iter(range(turns))
        killing = asyncio.create_task(self._kill(every, services))
        try:
            async with asyncio.TaskGroup() as listeners:
                for _ in range(at_once):
                    listeners.create_task(self._listen(numbers))
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)

    async def _listen(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            try:
                heard = await self._listener().ask(number)
            except (httpx.HTTPError, RuntimeError) as error:
                self.tally.failed.append(f"turn {number} failed: {type(error).__name__}: {error}")
            else:
                self.tally.compare(number, heard, self.wholes[number % len(_QUESTIONS)])

    async def _kill(self, every: int, services: Sequence[str]) -> None:
        """Somewhere within a turn; the next one only when all are there again."""
        dice, killed_at = random.Random(0), 0  # noqa: S311 - chaos, not secrets
        while True:
            await asyncio.sleep(dice.uniform(0.02, 0.4))
            over = len(self.tally.heard) + len(self.tally.failed)
            if over < killed_at + every:
                continue
            service, killed_at = dice.choice(services), over
            await asyncio.to_thread(self.cluster.kill_one, service)
            self.tally.kills[service] += 1
            await asyncio.to_thread(self.cluster.heal)

    def _listener(self) -> Listener:
        return Listener(self.cluster, self.client, self.model)


@asynccontextmanager
async def running(kind: Kind, folder: Path) -> AsyncIterator[Cluster]:
    if kind is Kind.PROCESSES:
        cluster = ProcessCluster(folder)
        with cluster.running():
            yield cluster
        return
    from services.on_ray import RaySettings, ray_platform

    replicas = 2
    async with ray_platform(RaySettings(default_checkpoint(), port=0, replicas=replicas)) as url:
        yield RayCluster(url, replicas)


async def chaos(kind: Kind, turns: int, at_once: int, every: int, services: Sequence[str]) -> Tally:
    with tempfile.TemporaryDirectory(prefix="antiphon-chaos-") as folder:
        async with running(kind, Path(folder)) as cluster, httpx.AsyncClient(timeout=60) as client:
            await asyncio.to_thread(cluster.heal)
            model = (await client.get(f"{cluster.urls[0]}/v1/models")).json()["data"][0]["id"]
            subject = Chaos(cluster, client, model)
            await subject.learn()
            await subject.run(turns, at_once, every, services)
            return subject.tally


def main(
    on: Annotated[Kind, typer.Option()] = Kind.PROCESSES,
    turns: Annotated[int, typer.Option(min=1)] = 200,
    at_once: Annotated[int, typer.Option(min=1)] = 2,
    every: Annotated[int, typer.Option(min=1, help="Turns between two kills.")] = 5,
    services: Annotated[str, typer.Option(help="Who may be killed.")] = ",".join((*STAGES, "gateway")),
) -> None:
    tally = asyncio.run(chaos(on, turns, at_once, every, services.split(",")))
    print(tally.report())
    raise typer.Exit(bool(tally.failed or tally.different))


if __name__ == "__main__":
    typer.run(main)
