"""Stages as queues: first come first served, shared by all at once, or paced by listeners. Each advances by slices of
time; turns within a slice keep their own moments."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.cluster_day.pool import Pool, spread_evenly
from benchmarks.cluster_day.service_times import Steps

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
# What replicas tell is of so long.
_TOLD_SECONDS: Final = 10.0


class Line:
    """Each replica serves one after the other."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.free_at = np.zeros(len(pool.serves))
        # Share of the latest seconds in which each computed.
        self.busy_share = np.zeros(len(pool.serves))

    def serve(self, at: Floats, seconds: Floats) -> tuple[Floats, Integers]:
        """at: in order. When each is done, and where; each replica gets as many, whoever is free first begins."""
        replicas = self.pool.serving
        order = replicas[np.argsort(self.free_at[replicas], kind="stable")]
        count, width = len(at), len(order)
        rounds = -(-count // width)
        arrivals, work = np.full((rounds, width), np.inf), np.zeros((rounds, width))
        arrivals.ravel()[:count], work.ravel()[:count] = at, seconds
        # Lindley's recursion: whoever comes begins when all before him are done, or when he comes.
        done = np.cumsum(work, axis=0)
        begins = np.maximum.accumulate(np.where(np.isinf(arrivals), -np.inf, arrivals - (done - work)), axis=0)
        finish = done + np.maximum(begins, self.free_at[order])
        self.free_at[order] = np.where(np.isinf(arrivals[0]), self.free_at[order], finish[-1])
        return finish.ravel()[:count], np.resize(order, count)

    def backlog(self, now: float) -> Floats:
        return np.maximum(self.free_at - now, 0.0)

    def pass_time(self, now: float, seconds: float, work: Floats) -> None:
        """work: seconds of computing that came to each in this slice."""
        self.busy_share += seconds / _TOLD_SECONDS * (np.minimum(work / seconds, 1.0) - self.busy_share)
        self.pool.pass_time(now, seconds, self.free_at > now)


class Shared:
    """Each replica's requests go on together, one output a step, and steps are longer the more they are."""

    def __init__(self, pool: Pool, steps: Steps) -> None:
        self.pool, self._steps = pool, steps
        size = len(pool.serves)
        # Outputs that each request of a replica has been given since the day began.
        self.outputs = np.zeros(size)
        self.live = np.zeros(size, dtype=np.int64)
        self.speed = np.zeros(size)
        self.replica = np.zeros(0, dtype=np.int64)
        self.turn = np.zeros(0, dtype=np.int64)
        self._begins, self._ends, self._heard_at = np.zeros(0), np.zeros(0), np.zeros(0)

    def step_seconds(self, live: Floats | Integers) -> Floats:
        return np.asarray(self._steps.seconds + self._steps.each_seconds * live)

    def choose(self, count: int) -> Integers:
        """The least busy, one after the other."""
        replicas = self.pool.serving
        return np.asarray(replicas[spread_evenly(self.live[replicas].astype(np.float64), count)])

    def enter(self, turns: Integers, replicas: Integers, outputs: Floats, heard_at: Floats) -> None:
        """heard_at: when a listener begins to play the first output."""
        self.live += np.bincount(replicas, minlength=len(self.live))
        begins = self.outputs[replicas]
        self.turn, self.replica = np.concatenate((self.turn, turns)), np.concatenate((self.replica, replicas))
        self._begins = np.concatenate((self._begins, begins))
        self._ends = np.concatenate((self._ends, begins + outputs))
        self._heard_at = np.concatenate((self._heard_at, heard_at))

    def advance(self, seconds: float, slowness: Floats) -> Integers:
        """slowness: of each replica, of what it does beside: 1 is none. The turns that have ended."""
        self.speed = 1.0 / (np.maximum(self.step_seconds(np.maximum(self.live, 1)), 1e-9) * slowness)
        self.outputs += seconds * self.speed
        over = self._ends <= self.outputs[self.replica]
        ended = self.turn[over]
        if len(ended):
            self._keep(~over)
        return ended

    def leads(self, now: float, output_seconds: float) -> Floats:
        """For each request, the seconds of sound that its listener has left."""
        made = (self.outputs[self.replica] - self._begins) * output_seconds
        return np.asarray(made - np.maximum(now - self._heard_at, 0.0))

    def take_from(self, dead: Integers) -> tuple[Integers, Floats]:
        """The turns of replicas that have died, and the outputs that each still lacks."""
        lost = np.isin(self.replica, dead)
        turns, left = self.turn[lost], (self._ends - self.outputs[self.replica])[lost]
        self._keep(~lost)
        return turns, np.maximum(left, 1.0)

    def _keep(self, kept: NDArray[np.bool_]) -> None:
        self.turn, self.replica, self._heard_at = self.turn[kept], self.replica[kept], self._heard_at[kept]
        self._begins, self._ends = self._begins[kept], self._ends[kept]
        self.live = np.bincount(self.replica, minlength=len(self.live))


class Paced:
    """Each replica does a little all the time for everybody who listens."""

    def __init__(self, pool: Pool, seconds_per_second: float, horizon_seconds: int) -> None:
        """seconds_per_second: of computing, for one listener. horizon_seconds: no listener stays longer."""
        self.pool, self._cost = pool, seconds_per_second
        self.live = np.zeros(len(pool.serves), dtype=np.int64)
        # By which each is behind.
        self.late_seconds = np.zeros(len(pool.serves))
        # By the second in which they will: of each replica, listeners that leave.
        self._leaving = np.zeros((horizon_seconds, len(pool.serves)), dtype=np.int64)

    @property
    def use(self) -> Floats:
        return self.live * self._cost

    def enter(self, now: float, seconds: Floats) -> Integers:
        """For so long each; gives where."""
        replicas = self.pool.serving
        chosen = replicas[spread_evenly(self.live[replicas].astype(np.float64), len(seconds))]
        self.live += np.bincount(chosen, minlength=len(self.live))
        ends = (int(now) + 1 + seconds.astype(np.int64)) % len(self._leaving)
        np.add.at(self._leaving, (ends, chosen), 1)
        return chosen

    def pass_time(self, now: float, seconds: float) -> None:
        for second in range(int(now), int(now + seconds)):
            place = second % len(self._leaving)
            self.live -= self._leaving[place]
            self._leaving[place] = 0
        self.late_seconds = np.maximum(self.late_seconds + seconds * (self.use - 1.0), 0.0)
        self.pool.pass_time(now, seconds, self.live > 0)

    def move_from(self, dead: Integers) -> int:
        """Their listeners go on at the others; how many they are."""
        moved = int(self.live[dead].sum())
        for one, other in zip(dead, np.resize(self.pool.serving, len(dead)), strict=True):
            self._leaving[:, other] += self._leaving[:, one]
            self.live[other] += self.live[one]
            self._leaving[:, one], self.live[one] = 0, 0
        self.late_seconds[dead] = 0.0
        return moved
