"""The figures of a run as tables for people and as JSON for programs."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from antiphon.telemetry.names import FIRST_PACKET_PARTS
from services.command_line.bench.figures import Gains, RunFigures, Spread

# Rows of the paper and the parts of our first packet that they are.
_PAPER_PARTS: Final = {
    "preprocessing, ms": ("prepare", "encoders"),
    "Thinker's first token, ms": ("thinker",),
    "Talker's first frame with its 15 MTP codes, ms": ("talker",),
    "codec, first frame, ms": ("codec",),
}
_PAPER_PACES: Final = {
    "Thinker tokens/s, each turn": "thinker_tokens_per_second",
    "Talker frames/s with MTP, each turn": "talker_frames_per_second",
}


@dataclass(frozen=True, slots=True)
class Report:
    # Of the checkpoint.
    model: str
    runs: Sequence[RunFigures]
    baseline: RunFigures | None
    threads: int

    def as_json(self) -> str:
        told = {
            "model": self.model,
            "machine": _machine(self.threads),
            "runs": [asdict(run) for run in self.runs],
            "baseline": asdict(self.baseline) if self.baseline else None,
            "gains": [asdict(Gains.over(self.baseline, run)) for run in self.runs] if self.baseline else None,
        }
        return json.dumps(told, indent=2)

    def write(self, file: Path) -> None:
        file.write_text(self.as_json() + "\n")

    def draw(self, file: Path) -> None:
        # Here, since only a picture needs matplotlib.
        from services.command_line.bench.plot import draw

        draw(file, self.model, self.runs, self.baseline)

    def show(self, console: Console) -> None:
        console.print(_runs_table(self.runs, self.baseline))
        console.print(_first_packet_table(self.runs, self.baseline))
        console.print(_paper_table(self.runs))
        for run in self.runs:
            if run.cached_tokens:
                console.print(f"{_named(run)}: {run.cached_tokens:.0f} tokens of each prompt were computed before.")
        if self.baseline is not None:
            console.print(_gains_table(self.runs, self.baseline))


def _machine(threads: int) -> dict[str, object]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": threads,
        # Of the last minute, so with the benchmark itself.
        "load_average": os.getloadavg()[0],
        "accelerators": _accelerators(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("antiphon", "torch")},
    }


def _accelerators() -> list[str]:
    """By nvidia-smi: this process computes nothing, so it does not ask torch."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()  # noqa: S603


def _runs_table(runs: Sequence[RunFigures], baseline: RunFigures | None) -> Table:
    table = _table("Voice turns, p50/p95")
    for heading in ("turns", "first text\nms", "first audio\nms", "real-time\nfactor", "tokens\n/s", "frames\n/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in _with(runs, baseline):
        table.add_row(
            _named(run),
            f"{run.turns}, {run.failed} failed" if run.failed else str(run.turns),
            _pair(run.first_text_ms, 0),
            _pair(run.first_audio_ms, 0),
            _pair(run.real_time_factor, 2),
            f"{run.tokens_per_second:.1f}",
            f"{run.frames_per_second:.1f}",
        )
    return table


def _first_packet_table(runs: Sequence[RunFigures], baseline: RunFigures | None) -> Table:
    told = [run for run in _with(runs, baseline) if run.first_packet_ms]
    table = _table("First packet by stage, mean ms")
    for run in told:
        table.add_column(_named(run), justify="right")
    for part in FIRST_PACKET_PARTS:
        table.add_row(part, *(f"{run.first_packet_ms[part]:.1f}" for run in told))
    table.add_section()
    table.add_row("total", *(f"{sum(run.first_packet_ms.values()):.1f}" for run in told))
    return table


def _paper_table(runs: Sequence[RunFigures]) -> Table:
    """The rows of Qwen3-Omni's technical report (arXiv 2509.17765, table 2), measured over HTTP instead of computed."""
    table = _table("As the paper tells it")
    for run in runs:
        table.add_column(f"{run.concurrency} at once", justify="right")
    for heading, parts in _PAPER_PARTS.items():
        table.add_row(heading, *(_sum(run, parts, 0) for run in runs))
    table.add_row("overall first packet, ms", *(_sum(run, FIRST_PACKET_PARTS, 0) for run in runs))
    table.add_section()
    for heading, name in _PAPER_PACES.items():
        table.add_row(heading, *(_or_dash(getattr(run, name), 0) for run in runs))
    table.add_row("MTP, 15 codes of a frame, ms", *(_or_dash(run.residual_codes_ms, 1) for run in runs))
    table.add_row("generation real-time factor", *(f"{run.real_time_factor.p50:.2f}" for run in runs))
    return table


def _sum(run: RunFigures, parts: Sequence[str], digits: int) -> str:
    told = run.first_packet_ms
    return _or_dash(sum(told[part] for part in parts) if told else None, digits)


def _or_dash(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _gains_table(runs: Sequence[RunFigures], baseline: RunFigures) -> Table:
    table = _table(f"Times better than {_named(baseline)}")
    gains = {_named(run): Gains.over(baseline, run).named() for run in runs}
    for heading in next(iter(gains.values())):
        table.add_column(heading.replace("_per_", "\n/ ").replace("_", " "), justify="right")
    for name, values in gains.items():
        table.add_row(name, *(f"{value:.2f}" for value in values.values()))
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    return table


def _named(run: RunFigures) -> str:
    return f"{run.name} x{run.concurrency}"


def _with(runs: Sequence[RunFigures], baseline: RunFigures | None) -> list[RunFigures]:
    return [*runs, *([baseline] if baseline else [])]


def _pair(spread: Spread, digits: int) -> str:
    return f"{spread.p50:.{digits}f}/{spread.p95:.{digits}f}"
