"""Whole voice turns, asked and answered aloud, against a running platform or one started here, beside plain
transformers: first audio, real-time factor, throughput, and where the first packet's time goes."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from antiphon.hosting.default_checkpoint import default_checkpoint
from benchmarks.figures import RunFigures
from benchmarks.report import Report
from benchmarks.served_platform import served_platform
from benchmarks.turn_client import Workload, run_turns
from services.command_line.answer_stream import AnswerFailedError

# Load per core from which on figures say little about the program.
_BUSY: Final = 0.5


class Baseline(StrEnum):
    TRANSFORMERS = "transformers"


def main(
    base_url: Annotated[str | None, typer.Option(help="A running platform; by default one is started.")] = None,
    concurrency: Annotated[str, typer.Option(help="Turns at once, such as 1,4,8; one run each.")] = "1,4,8",
    turns: Annotated[int, typer.Option(min=1, help="Turns of each run.")] = 16,
    audio: Annotated[list[Path] | None, typer.Option(help="Spoken questions, asked in turn.", exists=True)] = None,
    voice: Annotated[str | None, typer.Option(help="Who answers.")] = None,
    baseline: Annotated[Baseline | None, typer.Option(help="Also measure this, on the same questions.")] = None,
    baseline_turns: Annotated[int, typer.Option(min=1, help="Turns of the baseline, one after the other.")] = 4,
    checkpoint: Annotated[Path | None, typer.Option(help="nano by default.", exists=True, file_okay=False)] = None,
    threads: Annotated[int, typer.Option(min=1, help="torch's, in each; more only help large checkpoints.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")] = None,
) -> None:
    """Measure voice turns."""
    notes = Console(stderr=True)
    model = checkpoint or default_checkpoint()
    workload = Workload(audio or [default_checkpoint() / "examples" / "question.wav"], voice)
    _tell_if_busy(notes)
    try:
        with _platform(base_url, model, threads, notes) as url:
            runs = [_run(url, workload, level, turns, notes) for level in _levels(concurrency)]
    except (AnswerFailedError, RuntimeError) as error:
        notes.print(f"[bold red]voice_turn:[/] {error}", highlight=False)
        raise typer.Exit(1) from error
    beside = _transformers(model, workload, threads, baseline_turns, notes) if baseline else None
    report = Report(runs, beside, threads)
    report.show(Console())
    if json_file is not None:
        report.write(json_file)


def _tell_if_busy(notes: Console) -> None:
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > _BUSY * cores:
        notes.print(f"Others work on this machine too (load {load:.1f} on {cores} cores): figures will look worse.")


@contextmanager
def _platform(base_url: str | None, checkpoint: Path, threads: int, notes: Console) -> Iterator[str]:
    if base_url is not None:
        yield base_url.rstrip("/").removesuffix("/v1")
        return
    notes.print(f"Starting antiphon serve with {checkpoint.name} …", highlight=False)
    with served_platform(checkpoint, threads=threads) as url:
        yield url


def _run(base_url: str, workload: Workload, concurrency: int, turns: int, notes: Console) -> RunFigures:
    count = max(turns, concurrency)
    notes.print(f"{count} turns, {concurrency} at once …", highlight=False)
    figures, failures = asyncio.run(run_turns(base_url, workload, concurrency=concurrency, turns=count))
    for failure in dict.fromkeys(failures):
        notes.print(f"failed: {failure}", highlight=False, markup=False)
    return figures


def _transformers(checkpoint: Path, workload: Workload, threads: int, turns: int, notes: Console) -> RunFigures:
    # Here, since the rest needs neither torch nor transformers.
    from benchmarks.transformers_baseline import TransformersBaseline

    notes.print(f"{turns} turns of plain transformers …", highlight=False)
    return TransformersBaseline(checkpoint, threads=threads, voice=workload.voice).run(workload.sounds, turns)


def _levels(concurrency: str) -> list[int]:
    try:
        levels = [int(level) for level in concurrency.split(",")]
    except ValueError:
        levels = []
    if not levels or min(levels) < 1:
        raise typer.BadParameter(f"Expected numbers such as 1,4,8; found {concurrency!r}.", param_hint="--concurrency")
    return levels


if __name__ == "__main__":
    typer.run(main)
