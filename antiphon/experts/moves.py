"""From what shards hold to what they shall hold, a few experts at a time: load, let it be seen, give up.

Each step follows from what is there alone, so that it does not matter who took the last one, or what was lost since.
Every load is one of the target and every copy given up is none of it, so that there is an end.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.experts.table import ExpertKey


@dataclass(frozen=True, slots=True)
class ShardState:
    name: str
    # (layer, expert) that fit.
    capacity: int
    # What is ready.
    held: frozenset[ExpertKey]
    # Of these what has been ready for so long that trunks know it, and will stay. Only this is counted on.
    settled: frozenset[ExpertKey]
    # What it was told to load and has not yet.
    asked: frozenset[ExpertKey] = frozenset()


@dataclass(frozen=True, slots=True)
class MoveRules:
    # By one shard.
    loads_at_once: int = 8
    # Of each expert, never given up for the sake of room.
    least_copies: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """Of one shard."""

    loads: frozenset[ExpertKey]
    drops: frozenset[ExpertKey]
    # All that it shall hold from now on.
    assignment: frozenset[ExpertKey]


def next_steps(
    shards: Sequence[ShardState],
    target: Mapping[str, Set[ExpertKey]],
    pairs: NDArray[np.floating],
    rules: MoveRules,
) -> dict[str, Step]:
    """Of the shards in the target; others stay as they are. pairs (layers, experts): of what has as few copies, the
    hottest is loaded first.

    A copy is given up when all those of the target are settled. A shard that is full and has something to load gives up
    what has enough copies elsewhere. If the target leaves room on every shard, it is reached."""
    return _Steps(shards, target, pairs, rules).take()


class _Steps:
    def __init__(
        self,
        shards: Sequence[ShardState],
        target: Mapping[str, Set[ExpertKey]],
        pairs: NDArray[np.floating],
        rules: MoveRules,
    ) -> None:
        self._shards = [shard for shard in shards if shard.name in target]
        self._target, self._pairs, self._rules = target, pairs, rules
        self._wanted = Counter(key for shard in self._shards for key in target[shard.name])
        self._ready = Counter(key for shard in self._shards for key in shard.settled & target[shard.name])
        # Copies that can be counted on; fewer with every one that is given up in this step.
        self._live = Counter(key for shard in shards for key in shard.settled)

    def take(self) -> dict[str, Step]:
        drops = {shard.name: self._superseded(shard) for shard in self._shards}
        for shard in self._shards:
            if not drops[shard.name]:
                drops[shard.name] = self._for_room(shard)
        return {shard.name: self._step(shard, drops[shard.name]) for shard in self._shards}

    def _superseded(self, shard: ShardState) -> frozenset[ExpertKey]:
        surplus = shard.held - self._target[shard.name]
        return self._given_up(shard, (key for key in surplus if 0 < self._wanted[key] == self._ready[key]))

    def _for_room(self, shard: ShardState) -> frozenset[ExpertKey]:
        missing = self._missing(shard)
        if not missing or self._room(shard) > 0:
            return frozenset()
        surplus = sorted(shard.held - self._target[shard.name], key=lambda key: (-self._live[key], *key))
        given: set[ExpertKey] = set()
        for key in surplus:
            if len(given) == min(len(missing), self._rules.loads_at_once):
                break
            least = max(1, min(self._rules.least_copies, self._wanted[key]))
            if self._live[key] - (key in shard.settled) >= least:
                given |= self._given_up(shard, (key,))
        return frozenset(given)

    def _given_up(self, shard: ShardState, keys: Iterable[ExpertKey]) -> frozenset[ExpertKey]:
        given = frozenset(keys)
        self._live.subtract(given & shard.settled)
        return given

    def _step(self, shard: ShardState, drops: frozenset[ExpertKey]) -> Step:
        wanted = self._target[shard.name]
        count = max(0, min(self._room(shard), self._rules.loads_at_once - len(shard.asked & wanted)))
        loads = frozenset(self._missing(shard)[:count])
        return Step(loads, drops, (shard.held - drops) | (shard.asked & wanted) | loads)

    def _missing(self, shard: ShardState) -> list[ExpertKey]:
        """What it has still to be told to load, most urgent first."""
        missing = self._target[shard.name] - shard.held - shard.asked
        return sorted(missing, key=lambda key: (self._live[key], -float(self._pairs[key]), *key))

    def _room(self, shard: ShardState) -> int:
        """What is given up in this step makes room for the next one."""
        return shard.capacity - len(shard.held | shard.asked)
