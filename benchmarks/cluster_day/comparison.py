"""The same day under each way of provisioning: the smallest static cluster that keeps the promise, Ray Serve's own rule
with several targets, and the platform's policies."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from typing import Final, Literal

from antiphon.scaling.pacing import Pacing
from benchmarks.cluster_day.cluster import Stage, Surroundings
from benchmarks.cluster_day.day import Result, busiest_minutes, load, simulate, sized
from benchmarks.cluster_day.provisioning import (
    Delays,
    Policies,
    Provisioning,
    QueueLength,
    Static,
    ongoing_when_busy,
)
from benchmarks.cluster_day.service_times import ServiceTimes, read_table
from benchmarks.cluster_day.traffic import Turns, turns_of

Kind = Literal["static", "queue length", "queue length, tuned", "policies"]

# Replicas that the day begins with are as busy.
_BUSY_AT_FIRST: Final = 0.6
# No stage has more than if its busiest minute made it so busy.
_BUSY_AT_MOST: Final = 0.4
_STATIC_STEPS: Final = 3
_LEAST_BUSY, _MOST_BUSY = 0.85, 1.25
SERVES_OWN: Final = Delays()
# Up at once, down as patiently and as gently as the policies.
TUNED: Final = Delays(up_seconds=0.0, down_seconds=300.0, look_back_seconds=30.0, down_share=0.3)


@dataclass(frozen=True, slots=True)
class Scene:
    table: str
    seed: int
    hours: float
    peak_per_second: float
    slo_seconds: float
    promise: float
    around: Surroundings

    def times(self) -> ServiceTimes:
        return read_table(self.table)

    def turns(self) -> Turns:
        return _turns(self.seed, self.hours, self.peak_per_second)


@dataclass(frozen=True, slots=True)
class Run:
    kind: Kind
    # Of what a replica bears, how much it shall do; of a static cluster, in the busiest minute of its stage.
    busy_share: float


@lru_cache(maxsize=1)
def _turns(seed: int, hours: float, peak_per_second: float) -> Turns:
    return turns_of(seed, hours=hours, peak_per_second=peak_per_second)


def run_one(scene: Scene, run: Run) -> Result:
    times, turns = scene.times(), scene.turns()
    busiest = busiest_minutes(times, turns)
    first = sized(load(times, turns, 0.0, 600.0), _BUSY_AT_FIRST)
    replicas = sized(busiest, run.busy_share) if run.kind == "static" else first
    provisioning = _provisioning(scene, run, sized(busiest, _BUSY_AT_MOST))
    return simulate(times, turns, replicas, provisioning, scene.around, slo_seconds=scene.slo_seconds)[0]


def _provisioning(scene: Scene, run: Run, most: Mapping[Stage, int]) -> Provisioning:
    times = scene.times()
    match run.kind:
        case "static":
            return Static()
        case "policies":
            starts = max(times.starts.model_dump().values()) + scene.around.provision_seconds
            return Policies(times, Pacing(start_seconds=starts), run.busy_share, most)
        case "queue length":
            return QueueLength(ongoing_when_busy(times, run.busy_share), SERVES_OWN, most)
        case "queue length, tuned":
            return QueueLength(ongoing_when_busy(times, run.busy_share), TUNED, most)


def smallest_static(scene: Scene) -> tuple[Run, Result]:
    """By halving: the busiest static cluster that keeps the promise."""
    low, high = _LEAST_BUSY, _MOST_BUSY
    best = Run("static", low)
    result = run_one(scene, best)
    for _ in range(_STATIC_STEPS):
        tried = Run("static", (low + high) / 2)
        found = run_one(scene, tried)
        if found.attained >= scene.promise:
            low, best, result = tried.busy_share, tried, found
        else:
            high = tried.busy_share
    return best, result


def compare(scene: Scene, runs: Sequence[Run], processes: int) -> list[tuple[Run, Result]]:
    """The static cluster first, then the runs in their order."""
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        static = pool.submit(smallest_static, scene)
        found = [pool.submit(run_one, scene, run) for run in runs]
        return [static.result(), *((run, each.result()) for run, each in zip(runs, found, strict=True))]
