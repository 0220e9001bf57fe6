"""The figures of a run as tables for people and as JSON for programs."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from antiphon.telemetry.names import FIRST_PACKET_PARTS
from benchmarks.figures import Gains, RunFigures, Spread


@dataclass(frozen=True, slots=True)
class Report:
    runs: Sequence[RunFigures]
    baseline: RunFigures | None
    threads: int

    def as_json(self) -> str:
        told = {
            "machine": _machine(self.threads),
            "runs": [asdict(run) for run in self.runs],
            "baseline": asdict(self.baseline) if self.baseline else None,
            "gains": [asdict(Gains.over(self.baseline, run)) for run in self.runs] if self.baseline else None,
        }
        return json.dumps(told, indent=2)

    def write(self, file: Path) -> None:
        file.write_text(self.as_json() + "\n")

    def show(self, console: Console) -> None:
        console.print(_runs_table(self.runs, self.baseline))
        console.print(_first_packet_table(self.runs, self.baseline))
        if self.baseline is not None:
            console.print(_gains_table(self.runs, self.baseline))


def _machine(threads: int) -> dict[str, object]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": threads,
        "python": platform.python_version(),
        **{name: version(name) for name in ("antiphon", "torch")},
    }


def _runs_table(runs: Sequence[RunFigures], baseline: RunFigures | None) -> Table:
    table = Table(title="Voice turns (p50 / p95)", title_justify="left")
    table.add_column("")
    for heading in ("at once", "turns", "failed", "first text ms", "first audio ms", "real-time factor"):
        table.add_column(heading, justify="right")
    for heading in ("tokens/s", "frames/s"):
        table.add_column(heading, justify="right")
    for run in _with(runs, baseline):
        table.add_row(
            run.name,
            str(run.concurrency),
            str(run.turns),
            str(run.failed),
            _milliseconds(run.first_text_ms),
            _milliseconds(run.first_audio_ms),
            f"{run.real_time_factor.p50:.2f} / {run.real_time_factor.p95:.2f}",
            f"{run.tokens_per_second:.1f}",
            f"{run.frames_per_second:.1f}",
        )
    return table


def _first_packet_table(runs: Sequence[RunFigures], baseline: RunFigures | None) -> Table:
    told = [run for run in _with(runs, baseline) if run.first_packet_ms]
    table = Table(title="First packet by stage, mean ms", title_justify="left")
    table.add_column("stage")
    for run in told:
        table.add_column(f"{run.name} x{run.concurrency}", justify="right")
    for part in FIRST_PACKET_PARTS:
        table.add_row(part, *(f"{run.first_packet_ms[part]:.1f}" for run in told))
    table.add_section()
    table.add_row("total", *(f"{sum(run.first_packet_ms.values()):.1f}" for run in told))
    return table


def _gains_table(runs: Sequence[RunFigures], baseline: RunFigures) -> Table:
    table = Table(title=f"Times better than {baseline.name} (one at a time)", title_justify="left")
    table.add_column("")
    gains = {f"{run.name} x{run.concurrency}": Gains.over(baseline, run).named() for run in runs}
    for heading in next(iter(gains.values())):
        table.add_column(heading.replace("_", " "), justify="right")
    for name, values in gains.items():
        table.add_row(name, *(f"{value:.2f}" for value in values.values()))
    return table


def _with(runs: Sequence[RunFigures], baseline: RunFigures | None) -> list[RunFigures]:
    return [*runs, *([baseline] if baseline else [])]


def _milliseconds(spread: Spread) -> str:
    return f"{spread.p50:.0f} / {spread.p95:.0f}"
