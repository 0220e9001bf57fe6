"""The replicas of one stage: some start, some serve, some drain, some die; and what they cost."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_ROOM: Final = 512


class Pool:
    """Replicas have places that are used again once one has gone. Moments are seconds of the day."""

    def __init__(self, count: int, start_seconds: float) -> None:
        self._start_seconds = start_seconds
        self.serves = np.zeros(_ROOM, dtype=np.bool_)
        self.drains = np.zeros(_ROOM, dtype=np.bool_)
        self.serves[:count] = True
        # Places of those that serve, in order.
        self.serving = np.arange(count)
        self._draining = 0
        self.starting: list[float] = []
        self.replica_seconds = 0.0
        self.most = count
        self.changes = 0

    @property
    def target(self) -> int:
        return len(self.serving) + len(self.starting)

    def resize(self, target: int, now: float) -> None:
        """Who has not begun goes first, then the newest; those drain, and never come back."""
        target = min(target, _ROOM // 2 + _ROOM // 4)
        missing = target - self.target
        self.changes += missing != 0
        self.starting += [now + self._start_seconds] * max(0, missing)
        while self.starting and self.target > target:
            self.starting.pop()
        surplus = self.target - target
        if surplus > 0:
            going = self.serving[-surplus:]
            self.serves[going], self.drains[going] = False, True
            self._count()
        self.most = max(self.most, self.target)

    def fail(self, count: int, draws: np.random.Generator, now: float) -> NDArray[np.int64]:
        """So many die at once, and others are started for them. At least one is left."""
        serving = self.serving
        dead = draws.permutation(serving)[: min(count, len(serving) - 1)]
        self.serves[dead] = False
        self._count()
        self.starting += [now + self._start_seconds] * len(dead)
        return np.asarray(dead, dtype=np.int64)

    def pass_time(self, now: float, seconds: float, busy: NDArray[np.bool_]) -> None:
        """busy: places whose replica has something to do; who drains stays as long."""
        self.replica_seconds += seconds * (len(self.serving) + self._draining + len(self.starting))
        if self._draining:
            self.drains &= busy
            self._draining = int(self.drains.sum())
        ready = sum(at <= now for at in self.starting)
        if ready:
            self.starting = [at for at in self.starting if at > now]
            free = np.flatnonzero(~(self.serves | self.drains))
            self.serves[free[:ready]] = True
            self._count()

    def _count(self) -> None:
        self.serving = np.flatnonzero(self.serves)
        self._draining = int(self.drains.sum())


def spread_evenly(loads: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """For each of `count` newcomers the index of whoever has the least then, as if they came one after the other."""
    order = np.argsort(loads, kind="stable")
    levels = loads[order]
    below = np.cumsum(levels)
    ranks = np.arange(1, len(order) + 1)
    # Newcomers that it takes to lift the first of them to the level of the next.
    lifts = ranks * levels - below
    used = int(np.searchsorted(lifts, count, side="left"))
    used = max(1, min(used, len(order)))
    level = (count + below[used - 1]) / used
    shares = np.maximum(np.floor(level - levels[:used] + 1e-9), 0).astype(np.int64)
    shares[: max(0, count - int(shares.sum()))] += 1
    return np.repeat(order[:used], shares)[:count] if shares.sum() >= count else np.resize(order[:used], count)
