"""A day of traffic on hundreds of replicas, three ways of provisioning. Simulated: see docs/scaling.md.

python -m benchmarks.cluster_day --seeds 1,2,3 --plot docs/cluster_day.svg
python -m benchmarks.cluster_day --table h100_estimates --peak 60
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from benchmarks.cluster_day.cluster import Surroundings
from benchmarks.cluster_day.comparison import Kind, Run, Scene, compare
from benchmarks.cluster_day.report import draw, stage_table, table
from benchmarks.cluster_day.service_times import TABLES

# Chosen on the day of another seed, 11.
_POLICIES = Run("policies", 0.8)
_RUNS = (
    _POLICIES,
    Run("policies", 0.74),
    Run("queue length", 0.7),
    Run("queue length, tuned", 0.67),
    Run("queue length, tuned", 0.73),
)

# By stage: each way of provisioning as it costs about as much.
_SHOWN: Final[Sequence[tuple[Kind, float | None]]] = (
    ("static", None),
    ("policies", 0.8),
    ("queue length, tuned", 0.73),
)


def main(
    seeds: Annotated[str, typer.Option(help="Days, by the seeds they are drawn from.")] = "1",
    table_name: Annotated[str, typer.Option("--table", help=f"Service times: a file of {TABLES.name}/.")] = "nano",
    hours: Annotated[float, typer.Option(min=0.5, max=24)] = 24.0,
    peak: Annotated[float, typer.Option(help="Turns a second in the busiest moment of a usual day.", min=1)] = 200.0,
    slo_seconds: Annotated[float, typer.Option(help="For the first sound.", min=0.05)] = 1.0,
    promise: Annotated[float, typer.Option(help="Share of turns that keep it.", min=0.5, max=1)] = 0.99,
    provision_seconds: Annotated[float, typer.Option(help="Of the cluster, for a new replica.", min=0)] = 45.0,
    plot: Annotated[Path | None, typer.Option(help="Draw the first day here, as .svg or .png.")] = None,
) -> None:
    began = time.monotonic()
    days = {}
    for seed in [int(each) for each in seeds.split(",")]:
        around = Surroundings(provision_seconds=provision_seconds, seed=seed)
        scene = Scene(table_name, seed, hours, peak, slo_seconds, promise, around)
        days[seed] = compare(scene, _RUNS, min(2, os.cpu_count() or 1))
        turns, failures = days[seed][0][1].turns, [result.failures for _, result in days[seed]]
        print(f"Day {seed}: {turns} turns; {min(failures)} to {max(failures)} replicas died.\n")
        print(table({seed: days[seed]}), end="\n\n")
        print(stage_table({seed: days[seed]}, _SHOWN), end="\n\n", flush=True)
        if plot is not None and len(days) == 1:
            draw(days[seed], [_POLICIES, Run("queue length, tuned", 0.73)], plot)
    if len(days) > 1:
        print(table(days), end="\n\n")
        print(stage_table(days, _SHOWN))
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    typer.run(main)
