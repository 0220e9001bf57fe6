"""A sweep: the platform served here or elsewhere, a run for each concurrency, then the baseline on the same sounds."""

import asyncio
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console

from antiphon.hosting.default_checkpoint import default_checkpoint
from services.command_line.bench.figures import RunFigures
from services.command_line.bench.plan import Asked, Measured, ModelSize
from services.command_line.bench.report import Report
from services.command_line.bench.served_platform import served_platform
from services.command_line.bench.spoken_questions import SpokenQuestions
from services.command_line.bench.turn_client import Workload, run_turns

# Load per core from which on figures say little about the program.
_BUSY: Final = 0.5
# Beside 71 GB of weights an 80 GB GPU has room for these: 3.2 and 0.7 GB of keys and values.
_REAL_CACHE_ROWS: Final = {"ANTIPHON_THINKER_CACHE_ROWS": "32768", "ANTIPHON_TALKER_CACHE_ROWS": "32768"}


def run_sweep(asked: Asked, measured: Measured, notes: Console) -> Report:
    """Raises AnswerFailedError when no turn of a run succeeded, RuntimeError when the platform does not start."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="antiphon-bench-")))
        checkpoint = _checkpoint(measured, folder)
        questions = SpokenQuestions(
            asked.sounds or [default_checkpoint() / "examples" / "question.wav"], folder, seconds=asked.seconds
        )
        workload = Workload(questions, asked.voice, asked.most_answer_tokens)
        _tell_if_busy(notes)
        with _platform(checkpoint, asked, measured, notes) as url:
            runs = [_run(url, workload, level, measured.turns, notes) for level in measured.levels]
        baseline = _baseline(checkpoint, workload, asked, measured, notes) if measured.baseline_turns else None
    return Report(measured.base_url or checkpoint.name, runs, baseline, measured.threads)


def _checkpoint(measured: Measured, folder: Path) -> Path:
    if measured.random_size is None:
        return (measured.checkpoint or default_checkpoint()).resolve()
    # Here, since the rest needs no torch.
    from services.command_line.bench.random_checkpoint import write_random_checkpoint

    return write_random_checkpoint(folder, measured.random_size, measured.weights_seed, default_checkpoint())


def _tell_if_busy(notes: Console) -> None:
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > _BUSY * cores:
        notes.print(f"Others work on this machine too (load {load:.1f} on {cores} cores): figures will look worse.")


@contextmanager
def _platform(checkpoint: Path, asked: Asked, measured: Measured, notes: Console) -> Iterator[str]:
    if measured.base_url is not None:
        yield measured.base_url.rstrip("/").removesuffix("/v1")
        return
    notes.print(f"Starting antiphon serve with {checkpoint.name} …", highlight=False)
    with served_platform(checkpoint, threads=measured.threads, variables=_variables(asked, measured)) as url:
        yield url


def _variables(asked: Asked, measured: Measured) -> Mapping[str, str]:
    variables = dict(_REAL_CACHE_ROWS) if measured.random_size is ModelSize.REAL else {}
    if asked.most_speech_frames is not None:
        variables["ANTIPHON_GATEWAY_MAX_SPEECH_FRAMES"] = str(asked.most_speech_frames)
    return {name: os.environ.get(name, value) for name, value in variables.items()}


def _run(base_url: str, workload: Workload, concurrency: int, turns: int, notes: Console) -> RunFigures:
    count = max(turns, concurrency)
    notes.print(f"{count} turns, {concurrency} at once …", highlight=False)
    figures, failures = asyncio.run(run_turns(base_url, workload, concurrency=concurrency, turns=count))
    for failure in dict.fromkeys(failures):
        notes.print(f"failed: {failure}", highlight=False, markup=False)
    return figures


def _baseline(checkpoint: Path, workload: Workload, asked: Asked, measured: Measured, notes: Console) -> RunFigures:
    # Here, for the same reason.
    from services.command_line.bench.transformers_baseline import AnswerBounds, TransformersBaseline

    notes.print(f"{measured.baseline_turns} turns of plain transformers …", highlight=False)
    bounds = AnswerBounds(asked.most_answer_tokens, asked.most_speech_frames)
    baseline = TransformersBaseline(checkpoint, threads=measured.threads, bounds=bounds)
    return baseline.run(workload, measured.baseline_turns)
