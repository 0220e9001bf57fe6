"""The table and the pictures of the simulated days."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from benchmarks.cluster_day.cluster import STAGES
from benchmarks.cluster_day.comparison import Kind, Run
from benchmarks.cluster_day.day import Result

# Of each seed, in the same order.
Days = Mapping[int, Sequence[tuple[Run, Result]]]

_HEAD = (
    "| provisioning | first sound in time, % | turns too late | heard silence, % | first sound p50 / p99 | "
    "replica-hours | of static |"
)


def table(days: Days) -> str:
    """The median of the seeds, and the least and the most."""
    lines = [_HEAD, "|" + "---|" * 7]
    for place, (run, _) in enumerate(next(iter(days.values()))):
        results = [day[place][1] for day in days.values()]
        statics = [day[0][1].all_hours for day in days.values()]
        shares = [100 * result.all_hours / static for result, static in zip(results, statics, strict=True)]
        name = run.kind if run.kind == "static" else f"{run.kind}, {run.busy_share:.2f} busy"
        cells = (
            name,
            _spread([100 * result.attained for result in results], 2),
            _spread([result.misses for result in results], 0),
            _spread([100 * result.silent for result in results], 3),
            " / ".join(
                f"{median(values):.2f} s"
                for values in (
                    [result.first_audio_p50_seconds for result in results],
                    [result.first_audio_p99_seconds for result in results],
                )
            ),
            _spread([result.all_hours for result in results], 0),
            _spread(shares, 0) + " %",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def stage_table(days: Days, kinds: Sequence[tuple[Kind, float | None]]) -> str:
    """Replica-hours by stage, the median of the seeds. kinds: which runs, by their busy share unless there is one."""
    lines = ["| replica-hours | " + " | ".join(STAGES) + " | most at once |", "|" + "---|" * (len(STAGES) + 2)]
    for place, (run, _) in enumerate(next(iter(days.values()))):
        if not any(run.kind == kind and share in (None, run.busy_share) for kind, share in kinds):
            continue
        results = [day[place][1] for day in days.values()]
        hours = [f"{median([result.hours[stage] for result in results]):.0f}" for stage in STAGES]
        most = median([float(result.replicas.max()) for result in results])
        lines.append(f"| {run.kind} | " + " | ".join(hours) + f" | {most:.0f} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int) -> str:
    middle = f"{median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def draw(day: Sequence[tuple[Run, Result]], shown: Sequence[Run], file: Path) -> None:
    """One seed's day: turns and replicas by the hour; and what each way of provisioning costs and misses."""
    figure = Figure(figsize=(9, 9), layout="constrained")
    traffic, replicas, costs = figure.subplots(3, 1)
    hours = [place / 6 for place in range(len(day[0][1].arrived))]
    traffic.plot(hours, day[0][1].arrived / 600, color="0.3")
    traffic.set_ylabel("turns a second")
    for run, result in day:
        if run in shown or run.kind == "static":
            replicas.step(hours, result.replicas[: len(hours)], label=run.kind, where="post")
    replicas.set_ylabel("replicas of all stages")
    replicas.set_xlabel("hour of the day")
    replicas.legend()
    for kind in dict.fromkeys(run.kind for run, _ in day):
        points = sorted((result.all_hours, max(result.misses, 1)) for run, result in day if run.kind == kind)
        costs.plot(*zip(*points, strict=True), marker="o", label=kind)
    costs.set_yscale("log")
    costs.set_xlabel("replica-hours of the day")
    costs.set_ylabel("turns whose first sound came too late")
    costs.legend()
    figure.savefig(file, metadata={"Date": None})
