"""The expert shards of the day: experts some of which are hot, placed by the platform's own balancer."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiphon.experts.balance import shard_loads
from antiphon.experts.placement import Placement, PlacementRules, ShardRoom, place
from benchmarks.cluster_day.pool import Pool
from benchmarks.cluster_day.service_times import ExpertTimes

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

_ZIPF: Final = 1.0
_DRIFT: Final = 0.3
_DRIFT_SECONDS: Final = 1800
_FULL: Final = 0.97
# What shards tell is of so long.
_TOLD_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Trunks:
    """What they do a second: each its steps with so many answers, all together their prompts and the rows of these."""

    steps: Floats
    live: Integers
    prompts: float
    prompt_rows: float


class Shards:
    def __init__(self, pool: Pool, times: ExpertTimes, draws: np.random.Generator) -> None:
        self.pool, self.times, self._draws = pool, times, draws
        ranks = np.stack([draws.permutation(times.experts) + 1 for _ in range(times.layers)])
        self._hotness = ranks**-_ZIPF
        self._placement: Placement | None = None
        self._serving: tuple[int, ...] = ()
        # Of all work, what each shard does.
        self.shares = np.zeros(0)
        self.utilisation = np.zeros(len(pool.serves))
        self.wait_seconds = 0.0
        self.placements = 0

    def pass_time(self, now: float, seconds: float, trunks: "Trunks") -> Floats:
        """Gives by how many seconds each trunk's steps are longer for waiting."""
        self._place(now)
        work, calls = self._work(trunks)
        use = work * self.shares
        self.utilisation += seconds / _TOLD_SECONDS * (self._everywhere(use) - self.utilisation)
        busiest = float(use.max())
        mean_seconds = work / max(calls, 1e-9)
        # Calls that come at any moment and take about as long (Pollaczek and Khinchine); beyond its limits a shard
        # serves what it can, and trunks wait for it.
        waits = mean_seconds * min(busiest, _FULL) / (2 * (1 - min(busiest, _FULL)))
        self.wait_seconds = waits * max(1.0, busiest / _FULL)
        self.pool.pass_time(now, seconds, np.zeros(len(self.pool.serves), dtype=np.bool_))
        return np.full(len(trunks.steps), self.times.layers * self.wait_seconds)

    def _work(self, trunks: "Trunks") -> tuple[float, float]:
        """Seconds of computing and calls, a second, of all trunks together. A step calls each shard that has a copy of
        one of its pairs; a step with a prompt calls all of them."""
        times, count, per_token = self.times, len(self.shares), self.times.experts_per_token
        called = count * (1 - (1 - 1 / count) ** (trunks.live * per_token))
        calls = (float((trunks.steps * called).sum()) + trunks.prompts * count) * times.layers
        rows = float((trunks.steps * trunks.live).sum()) + trunks.prompt_rows
        pairs = rows * per_token * times.layers
        return calls * times.calls.seconds + pairs * times.calls.each_seconds, calls

    def _place(self, now: float) -> None:
        """Anew when shards have come or gone, or other experts have become hot."""
        serving = tuple(self.pool.serving.tolist())
        has_drifted = int(now) % _DRIFT_SECONDS == 0
        if serving == self._serving and not has_drifted:
            return
        if has_drifted:
            self._hotness = self._hotness * np.exp(self._draws.normal(0, _DRIFT, self._hotness.shape))
        rooms = [ShardRoom(f"{index:04}", self.times.shard_capacity) for index in serving]
        current = {} if self._placement is None else self._placement.by_shard()
        known = {room.name: current.get(room.name, frozenset()) for room in rooms}
        weights = self._hotness / self._hotness.sum(axis=1, keepdims=True)
        self._placement = place(weights * 1e4, rooms, PlacementRules(), known)
        loads = shard_loads(weights, self._placement.held).sum(axis=1)
        self.shares, self._serving = loads / loads.sum(), serving
        self.placements += 1

    def _everywhere(self, use: Floats) -> Floats:
        spread = np.zeros(len(self.pool.serves))
        spread[list(self._serving)] = np.minimum(use, 1.0)
        return spread
