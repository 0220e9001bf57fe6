"""Where the time goes while voice turns are answered: of one stage's thread, or by torch's operations on all of them.

python benchmarks/profile_turn.py talker                             # processor time of its thread; nano, this machine
python benchmarks/profile_turn.py gateway --by calls                 # the event loop: HTTP, gRPC and the turns
python benchmarks/profile_turn.py all --by operations --random-weights real --window-seconds 1      # on a GPU: kernels
"""

import asyncio
import cProfile
import json
import pstats
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from torch._C._profiler import _ExperimentalConfig
from torch.profiler import ProfilerActivity, profile

from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.telemetry.waterfall import first_packet
from services.command_line.bench.plan import ModelSize
from services.command_line.bench.random_checkpoint import write_random_checkpoint
from services.embedded import EmbeddedPlatform, EmbeddedSettings, running_platform


class Stage(StrEnum):
    ALL = "all"
    GATEWAY = "gateway"
    ENCODERS = "encoders"
    THINKER = "thinker"
    TALKER = "talker"
    CODEC = "codec"


class By(StrEnum):
    # Of all threads, for a while.
    OPERATIONS = "operations"
    # Of one thread.
    CALLS = "calls"
    # Processor time of one thread alone: profiles themselves take some.
    NOTHING = "nothing"


# Names of the threads that compute; the event loop is the main thread.
_THREADS: Final = {
    Stage.ENCODERS: "audio encoder-batcher",
    Stage.THINKER: "Thinker-decoder",
    Stage.TALKER: "Talker-decoder",
    Stage.CODEC: "codec-batcher",
}


@dataclass(slots=True)
class Watched:
    by: By
    rows: int
    cpu_seconds: float = 0.0
    table: str = ""

    @contextmanager
    def thread(self) -> Iterator[None]:
        """The one that it is called on."""
        started = time.thread_time()
        try:
            if self.by is By.NOTHING:
                yield
                return
            # Of this thread: others that compute meanwhile, or hold the interpreter's lock, do not count.
            with cProfile.Profile(time.thread_time) as calls:
                yield
            self.table = _calls_table(calls, self.rows)
        finally:
            self.cpu_seconds = time.thread_time() - started

    async def operations(self, seconds: float) -> None:
        """Of every thread. Each takes some 25 KB until the table is made, so a second is long."""
        every = _ExperimentalConfig(profile_all_threads=True)
        with profile(activities=_activities(), experimental_config=every) as operations:
            await asyncio.sleep(seconds)
        order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        self.table = operations.key_averages().table(sort_by=order, row_limit=self.rows)


def main(
    stage: Stage,
    by: Annotated[By, typer.Option(help="What the table tells.")] = By.NOTHING,
    checkpoint: Annotated[Path | None, typer.Option(help="nano by default.", exists=True, file_okay=False)] = None,
    random_weights: Annotated[ModelSize | None, typer.Option(help="A size without its weights.")] = None,
    turns: Annotated[int, typer.Option(min=1)] = 4,
    concurrency: Annotated[int, typer.Option(min=1)] = 1,
    rows: Annotated[int, typer.Option(min=1, help="Of the table.")] = 25,
    window_seconds: Annotated[float, typer.Option(min=0.01, help="In which operations are looked at.")] = 0.3,
) -> None:
    """The client is a process of its own."""
    watched = Watched(by, rows)
    with tempfile.TemporaryDirectory() as folder:
        chosen = checkpoint or default_checkpoint()
        if random_weights is not None:
            chosen = write_random_checkpoint(Path(folder), random_weights, 0, default_checkpoint())
        figures = Path(folder) / "figures.json"
        if stage in _THREADS and by is not By.OPERATIONS:
            _watch_thread(_THREADS[stage], watched)
        asyncio.run(_answer(chosen, figures, Client(turns, concurrency), _beside(stage, watched, window_seconds)))
        run = json.loads(figures.read_text())["runs"][0]
    _tell(watched, run)


@dataclass(frozen=True, slots=True)
class Client:
    turns: int
    concurrency: int

    async def ask(self, base_url: str, figures: Path) -> None:
        arguments = ["--base-url", base_url, "--turns", str(self.turns), "--concurrency", str(self.concurrency)]
        command = [sys.executable, "-m", "services.command_line", "bench", *arguments, "--json", str(figures)]
        asking = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        await asking.wait()


# Watches in its own way while the client asks.
Beside = Callable[[EmbeddedPlatform, Awaitable[None]], Awaitable[None]]


def _beside(stage: Stage, watched: Watched, window_seconds: float) -> Beside:
    async def operations(platform: EmbeddedPlatform, asking: Awaitable[None]) -> None:
        answering = asyncio.ensure_future(asking)
        while first_packet(platform.spans.spans()) is None:  # noqa: ASYNC110 - the first turn, which warms up, goes on
            await asyncio.sleep(0.05)
        await watched.operations(window_seconds)
        await answering

    async def event_loop(_platform: EmbeddedPlatform, asking: Awaitable[None]) -> None:
        with watched.thread():
            await asking

    async def other_thread(_platform: EmbeddedPlatform, asking: Awaitable[None]) -> None:
        await asking

    if watched.by is By.OPERATIONS:
        return operations
    return event_loop if stage is Stage.GATEWAY else other_thread


async def _answer(checkpoint: Path, figures: Path, client: Client, beside: Beside) -> None:
    async with running_platform(EmbeddedSettings(checkpoint)) as platform:
        await beside(platform, client.ask(platform.base_url, figures))


def _watch_thread(name: str, watched: Watched) -> None:
    """From its start to its end; waiting costs no processor time and no operations."""
    run = threading.Thread.run

    def watched_run(thread: threading.Thread) -> None:
        if thread.name != name:
            run(thread)
            return
        with watched.thread():
            run(thread)

    threading.Thread.run = watched_run  # type: ignore[method-assign]


def _tell(watched: Watched, run: dict[str, float]) -> None:
    turns = run["turns"] + 1  # and the one that was not counted
    frames, tokens = (run[f"{each}_per_second"] * run["wall_seconds"] / run["turns"] for each in ("frames", "tokens"))
    turn_ms = watched.cpu_seconds / turns * 1000
    print(watched.table)
    if watched.by is By.OPERATIONS:
        return
    print(
        f"{turns:.0f} turns of {tokens:.0f} tokens and {frames:.0f} frames: {turn_ms:.1f} ms of processor time a turn "
        f"on this thread, {turn_ms / frames:.2f} ms a frame."
    )


def _calls_table(calls: cProfile.Profile, rows: int) -> str:
    with tempfile.TemporaryFile("w+") as told:
        pstats.Stats(calls, stream=told).sort_stats("tottime").print_stats(rows)
        told.seek(0)
        return told.read()


def _activities() -> list[ProfilerActivity]:
    gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return [ProfilerActivity.CPU, *gpu]


if __name__ == "__main__":
    typer.run(main)
