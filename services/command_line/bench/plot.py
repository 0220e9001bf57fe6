"""The figures of a sweep as one picture: latency, keeping up, throughput and the first packet over concurrency."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from antiphon.telemetry.names import FIRST_PACKET_PARTS
from services.command_line.bench.figures import RunFigures, Spread

_INCHES = (10.0, 7.0)
_BASELINE_COLOUR = "0.5"


def draw(file: Path, model: str, runs: Sequence[RunFigures], baseline: RunFigures | None) -> None:
    """Writes what the name's ending says: svg or png."""
    figure = Figure(figsize=_INCHES, layout="constrained")
    figure.suptitle(f"{model}: spoken questions, spoken answers")
    (latency, keeping_up), (throughput, packet) = figure.subplots(2, 2)
    _spreads(latency, "first audio, ms", runs, [run.first_audio_ms for run in runs])
    _spreads(keeping_up, "real-time factor", runs, [run.real_time_factor for run in runs])
    keeping_up.axhline(1.0, color="tab:red", linewidth=0.8)
    _throughput(throughput, runs)
    _first_packet(packet, runs)
    if baseline is not None:
        _level(latency, baseline.first_audio_ms.p50)
        _level(keeping_up, baseline.real_time_factor.p50)
        _level(throughput, baseline.frames_per_second)
    for axes in (latency, keeping_up, throughput, packet):
        # Last: it fixes the top too.
        axes.set_ylim(bottom=0)
        axes.set_xlabel("turns at once")
        axes.legend(fontsize="small")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file)


def _spreads(axes: Axes, title: str, runs: Sequence[RunFigures], spreads: Sequence[Spread]) -> None:
    levels = _levels(runs)
    axes.set_title(title)
    axes.plot(levels, [spread.p50 for spread in spreads], "o-", label="p50")
    axes.plot(levels, [spread.p95 for spread in spreads], "o:", label="p95")


def _throughput(axes: Axes, runs: Sequence[RunFigures]) -> None:
    levels = _levels(runs)
    axes.set_title("all turns together, per second")
    axes.plot(levels, [run.frames_per_second for run in runs], "o-", label="codec frames")
    axes.plot(levels, [run.tokens_per_second for run in runs], "o-", label="text tokens")


def _first_packet(axes: Axes, runs: Sequence[RunFigures]) -> None:
    told = [run for run in runs if run.first_packet_ms]
    axes.set_title("first packet by stage, mean ms")
    below = [0.0] * len(told)
    for part in FIRST_PACKET_PARTS:
        heights = [run.first_packet_ms[part] for run in told]
        axes.bar(_levels(told), heights, bottom=below, label=part)
        below = [low + height for low, height in zip(below, heights, strict=True)]


def _level(axes: Axes, value: float) -> None:
    axes.axhline(value, color=_BASELINE_COLOUR, linestyle="--", label="plain transformers, 1 at once")


def _levels(runs: Sequence[RunFigures]) -> list[str]:
    return [str(run.concurrency) for run in runs]
