"""Where the time of one stage's thread goes while voice turns are answered, by torch's operations or by Python's calls.

python benchmarks/profile_turn.py talker                             # nano on this machine
python benchmarks/profile_turn.py gateway --by calls                 # the event loop: HTTP, gRPC and the turns
python benchmarks/profile_turn.py thinker --random-weights real      # on a GPU: its kernels too
"""

import asyncio
import cProfile
import json
import pstats
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import torch
import typer
from torch.profiler import ProfilerActivity, profile

from antiphon.hosting.default_checkpoint import default_checkpoint
from services.command_line.bench.plan import ModelSize
from services.command_line.bench.random_checkpoint import write_random_checkpoint
from services.embedded import EmbeddedSettings, running_platform


class Stage(StrEnum):
    GATEWAY = "gateway"
    ENCODERS = "encoders"
    THINKER = "thinker"
    TALKER = "talker"
    CODEC = "codec"


class By(StrEnum):
    OPERATIONS = "operations"
    CALLS = "calls"
    # Processor time alone: profiles themselves take some.
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
    """One thread: its processor time and its profile."""

    by: By
    rows: int
    cpu_seconds: float = 0.0
    table: str = ""

    @contextmanager
    def watching(self) -> Iterator[None]:
        started = time.thread_time()
        try:
            if self.by is By.NOTHING:
                yield
            elif self.by is By.CALLS:
                # Of this thread: others that compute meanwhile, or hold the interpreter's lock, do not count.
                with cProfile.Profile(time.thread_time) as calls:
                    yield
                self.table = _calls_table(calls, self.rows)
            else:
                with profile(activities=_activities()) as operations:
                    yield
                order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
                self.table = operations.key_averages().table(sort_by=order, row_limit=self.rows)
        finally:
            self.cpu_seconds = time.thread_time() - started


def main(
    stage: Stage,
    by: Annotated[By, typer.Option(help="torch's operations, Python's calls, or no table.")] = By.OPERATIONS,
    checkpoint: Annotated[Path | None, typer.Option(help="nano by default.", exists=True, file_okay=False)] = None,
    random_weights: Annotated[ModelSize | None, typer.Option(help="A size without its weights.")] = None,
    turns: Annotated[int, typer.Option(min=1)] = 4,
    concurrency: Annotated[int, typer.Option(min=1)] = 1,
    rows: Annotated[int, typer.Option(min=1, help="Of the table.")] = 25,
) -> None:
    """The client is a process of its own."""
    watched = Watched(by, rows)
    with tempfile.TemporaryDirectory() as folder:
        chosen = checkpoint or default_checkpoint()
        if random_weights is not None:
            chosen = write_random_checkpoint(Path(folder), random_weights, 0, default_checkpoint())
        figures = Path(folder) / "figures.json"
        if stage in _THREADS:
            _watch_thread(_THREADS[stage], watched)
        asyncio.run(_answer(chosen, figures, turns, concurrency, watched if stage is Stage.GATEWAY else None))
        run = json.loads(figures.read_text())["runs"][0]
    _tell(watched, run)


async def _answer(checkpoint: Path, figures: Path, turns: int, concurrency: int, loop_watched: Watched | None) -> None:
    async with running_platform(EmbeddedSettings(checkpoint)) as platform:
        arguments = ["--base-url", platform.base_url, "--turns", str(turns), "--concurrency", str(concurrency)]
        arguments += ["--json", str(figures), "--speech-frames", "125", "--answer-tokens", "40"]
        command = [sys.executable, "-m", "services.command_line", "bench", *arguments]
        client = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        if loop_watched is None:
            await client.wait()
            return
        with loop_watched.watching():
            await client.wait()


def _watch_thread(name: str, watched: Watched) -> None:
    """From its start to its end; waiting costs no processor time and no operations."""
    run = threading.Thread.run

    def watched_run(thread: threading.Thread) -> None:
        if thread.name != name:
            run(thread)
            return
        with watched.watching():
            run(thread)

    threading.Thread.run = watched_run  # type: ignore[method-assign]


def _tell(watched: Watched, run: dict[str, float]) -> None:
    turns = run["turns"] + 1  # and the one that was not counted
    frames, tokens = (run[f"{each}_per_second"] * run["wall_seconds"] / run["turns"] for each in ("frames", "tokens"))
    turn_ms = watched.cpu_seconds / turns * 1000
    print(watched.table)
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
