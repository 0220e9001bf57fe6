"""Many lines at once, each in a process of its own, into shards. What lies in whole shards already is kept."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recipes.nano.domain.sentences import Line
from recipes.nano.errors import RecipeError

from .settings import SpeechSettings
from .store import Utterance, read_lines, shard_path, shards, write_shard
from .synthesis import Numbered

LINES_PER_TASK = 8  # a process is handed so many at once

Speak = Callable[[Numbered], Utterance]


@dataclass(frozen=True)
class Shard:
    """What one file is to hold: lines with their numbers in the whole folder."""

    path: Path
    lines: Sequence[Numbered]

    @property
    def done(self) -> bool:
        return self.path.exists() and read_lines(self.path) == [line for _, line in self.lines]


def synthesise(folder: Path, lines: Sequence[Line], speak: Speak, settings: SpeechSettings) -> None:
    """The folder holds exactly these lines afterwards, in order. Raises RecipeError where a synthesiser is missing."""
    wanted = _planned(folder, lines, settings.utterances_per_shard)
    for stale in set(shards(folder)) - {shard.path for shard in wanted}:
        stale.unlink()
    missing = [shard for shard in wanted if not shard.done]
    if not missing:
        return
    try:
        _write(missing, speak, settings, f"speech: {folder.name}")
    except FileNotFoundError as program:
        raise RecipeError(f"{program.filename} is not installed: apt-get install flite espeak-ng") from program


def _planned(folder: Path, lines: Sequence[Line], utterances_per_shard: int) -> list[Shard]:
    numbered, starts = list(enumerate(lines)), range(0, len(lines), utterances_per_shard)
    return [
        Shard(shard_path(folder, index), numbered[start : start + utterances_per_shard])
        for index, start in enumerate(starts)
    ]


def _write(missing: Sequence[Shard], speak: Speak, settings: SpeechSettings, title: str) -> None:
    with _processes(settings) as processes, _progress() as progress:
        bar = progress.add_task(title, total=sum(len(shard.lines) for shard in missing))
        for shard in missing:
            write_shard(shard.path, processes.map(speak, shard.lines, chunksize=LINES_PER_TASK))
            progress.advance(bar, len(shard.lines))


def _processes(settings: SpeechSettings) -> ProcessPoolExecutor:
    """Spawned, not forked: this process may hold a GPU."""
    return ProcessPoolExecutor(settings.processes or os.cpu_count(), get_context("spawn"))


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))
