"""`antiphon bench`: whole voice turns, asked and answered aloud over HTTP through every service, beside plain
transformers: first audio, real-time factor, throughput, and where the first packet's time goes."""

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from antiphon.errors import AntiphonError
from services.command_line.answer_stream import AnswerFailedError
from services.command_line.bench.plan import Asked, Measured, ModelSize

if TYPE_CHECKING:
    from services.command_line.bench.report import Report

# Random weights never come to an end of their own: two sentences of text, ten seconds of speech.
_RANDOM_ANSWER_TOKENS = 40
_RANDOM_SPEECH_FRAMES = 125
_RANDOM_QUESTION_SECONDS = 5.0
_PICTURES = (".svg", ".png")


class Baseline(StrEnum):
    TRANSFORMERS = "transformers"


def bench(
    base_url: Annotated[str | None, typer.Option(help="A running platform; by default one is started.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="nano by default.", exists=True, file_okay=False)] = None,
    random_weights: Annotated[
        ModelSize | None, typer.Option(help="A model of this size without its weights, instead of a checkpoint.")
    ] = None,
    weights_seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
    concurrency: Annotated[str, typer.Option(help="Turns at once, such as 1,4,8; one run each.")] = "1,4,8",
    turns: Annotated[int, typer.Option(min=1, help="Turns of each run.")] = 16,
    audio: Annotated[list[Path] | None, typer.Option(help="Spoken questions, asked in turn.", exists=True)] = None,
    audio_seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Length of a question; with random weights 5.")
    ] = None,
    voice: Annotated[str | None, typer.Option(help="Who answers.")] = None,
    answer_tokens: Annotated[
        int | None, typer.Option(min=2, help="Bound of an answer's text; with random weights 40.")
    ] = None,
    speech_frames: Annotated[
        int | None, typer.Option(min=1, help="Bound of an answer's speech, 80 ms each; with random weights 125.")
    ] = None,
    baseline: Annotated[Baseline | None, typer.Option(help="Also measure this, on the same questions.")] = None,
    baseline_turns: Annotated[int, typer.Option(min=1, help="Turns of the baseline, one after the other.")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="torch's, in each; more only help large checkpoints.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here too.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw them here, as .svg or .png.")] = None,
) -> None:
    """Measure voice turns."""
    _check_choice(base_url, checkpoint, random_weights, baseline)
    _check_plot(plot_file)
    is_random = random_weights is not None
    asked = Asked(
        sounds=audio or (),
        seconds=audio_seconds or (_RANDOM_QUESTION_SECONDS if is_random else None),
        voice=voice,
        most_answer_tokens=answer_tokens or (_RANDOM_ANSWER_TOKENS if is_random else None),
        most_speech_frames=speech_frames or (_RANDOM_SPEECH_FRAMES if is_random else None),
    )
    measured = Measured(
        base_url=base_url,
        checkpoint=checkpoint,
        random_size=random_weights,
        weights_seed=weights_seed,
        levels=_levels(concurrency),
        turns=turns,
        baseline_turns=baseline_turns if baseline else 0,
        threads=threads,
    )
    report = _report(asked, measured)
    report.show(Console())
    if json_file is not None:
        report.write(json_file)
    if plot_file is not None:
        report.draw(plot_file)


def _report(asked: Asked, measured: Measured) -> "Report":
    # Here, so that the other commands start without numpy.
    from services.command_line.bench.sweep import run_sweep

    notes = Console(stderr=True)
    try:
        return run_sweep(asked, measured, notes)
    except (AnswerFailedError, AntiphonError, RuntimeError) as error:
        notes.print(f"[bold red]antiphon bench:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from error


def _check_choice(
    base_url: str | None, checkpoint: Path | None, size: ModelSize | None, baseline: Baseline | None
) -> None:
    if size is not None and (checkpoint is not None or base_url is not None):
        raise typer.BadParameter(
            "Expected no checkpoint and no running platform beside it.", param_hint="--random-weights"
        )
    if baseline is not None and find_spec("transformers") is None:
        raise typer.BadParameter(
            "transformers is not installed; `pip install 'antiphon[dev]'`.", param_hint="--baseline"
        )


def _check_plot(file: Path | None) -> None:
    """Before anything is measured."""
    if file is None:
        return
    if file.suffix not in _PICTURES:
        raise typer.BadParameter(f"Expected {' or '.join(_PICTURES)}; found {file.name}.", param_hint="--plot")
    if find_spec("matplotlib") is None:
        raise typer.BadParameter("matplotlib is not installed; `pip install 'antiphon[bench]'`.", param_hint="--plot")


def _levels(concurrency: str) -> list[int]:
    try:
        levels = [int(level) for level in concurrency.split(",")]
    except ValueError:
        levels = []
    if not levels or min(levels) < 1:
        raise typer.BadParameter(f"Expected numbers such as 1,4,8; found {concurrency!r}.", param_hint="--concurrency")
    return levels
