"""Which shards hold the copies of one layer's experts: what is there stays as far as it is wanted, what is missing goes
where least is to be done, and the busiest shard gives or changes copies until it is not busy any more."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiphon.experts.spreading import spread

_MOST_EXCHANGES: Final = 200
# Among what is as good, first what has less to do.
_TIE: Final = 1e-3

Held = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LayerRoom:
    """Of each shard."""

    # Experts of this layer that may be there; how many of them leave the layers to come as much, and not more.
    slots: NDArray[np.int64]
    most: NDArray[np.int64]
    least: NDArray[np.int64]
    # The zone, host or whatever else may be lost at once. Two copies are never in the same one, if there is room.
    domains: NDArray[np.int64]
    # What it has to do of other layers, as a share of each layer.
    burden: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Evenness:
    """Of the shards' loads, as shares of their mean."""

    # Nothing is exchanged while all are within these two ...
    most: float
    least: float = 0.0
    # ... and if not, until no load is above this and none below the least.
    aim: float = 1.05


def pack_layer(
    weights: NDArray[np.float64], counts: NDArray[np.int64], start: Held, room: LayerRoom, wanted: Evenness
) -> Held:
    """weights, counts (experts): what is to be done, and by how many copies, each of which does as much; start (shards,
    experts). Exchanges end early when they do not help any more."""
    packing = _Packing(weights, counts, start, room)
    packing.drop_surplus()
    packing.place_missing()
    packing.spread()
    most = wanted.most
    for _ in range(_MOST_EXCHANGES):
        if packing.is_within(wanted.least, most) or not packing.exchange():
            break
        most = wanted.aim
    return packing.held


class _Packing:
    def __init__(self, weights: NDArray[np.float64], counts: NDArray[np.int64], start: Held, room: LayerRoom) -> None:
        self.held, self._weights, self._counts, self._room = start.copy(), weights, counts, room
        self._heat = weights / np.maximum(counts, 1)  # of one copy
        self.load: NDArray[np.float64] = self.held @ self._heat
        self._taken = self.held.sum(axis=1)

    def drop_surplus(self) -> None:
        for expert in np.argsort(-self._heat, kind="stable"):
            for _ in range(int(self.held[:, expert].sum() - self._counts[expert])):
                self._remove(self._superfluous(expert), expert)
        for shard in np.flatnonzero(self._taken > self._room.slots):
            self._shrink(int(shard))

    def place_missing(self) -> None:
        """The hottest first, each to the shard that has least to do; the last ones to shards that have too few."""
        wanted = np.maximum(self._counts - self.held.sum(axis=0), 0)
        left = int(wanted.sum())
        for expert in np.argsort(-self._heat, kind="stable"):
            for _ in range(int(wanted[expert])):
                shard = self._place(expert, left)
                if shard is None:
                    shard = self._make_room(int(expert))
                if shard is not None:
                    self._add(shard, expert)
                left -= 1

    def spread(self) -> None:
        """And goes on with the copies that there was room for."""
        self._counts = self.held.sum(axis=0)
        self._heat = self._weights / np.maximum(self._counts, 1)
        spread(self.held[:, None], self._heat[None], self._room.slots, self._room.domains)
        self.load, self._taken = self.held @ self._heat, self.held.sum(axis=1)

    def is_within(self, least: float, most: float) -> bool:
        mean = float(self.load.mean())
        return not mean or bool(self.load.max() / mean <= most and self.load.min() / mean >= least)

    def exchange(self) -> bool:
        """The busiest shard gives one of its copies away, against a colder one or against room. Whether that helped."""
        busiest = int(self.load.argmax())
        given = np.flatnonzero(self.held[busiest])
        shards, taken, heat = self._offers(busiest)
        if not len(given) or not len(shards):
            return False
        relief = self._heat[given][:, None] - heat
        after = np.maximum(self.load[busiest] - relief, self.load[shards] + relief) + _TIE * self.load[shards]
        after[self.held[shards][:, given].T] = np.inf
        after[self._is_bound(given, busiest, shards)] = np.inf
        best, other = np.unravel_index(int(after.argmin()), after.shape)
        if after[best, other] - _TIE * self.load[shards[other]] > self.load[busiest] * (1 - 1e-6):
            return False
        self._swap(busiest, int(given[best]), int(shards[other]), int(taken[other]))
        return True

    def _offers(self, busiest: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """What may come in return: from which shard, which expert (or -1, where there is room), and how hot it is."""
        shards, experts = np.nonzero(self.held & ~self.held[busiest])
        others = np.flatnonzero(self._taken < np.minimum(self._room.slots, self._room.most))
        others = others[others != busiest]
        is_free = ~self._is_bound(experts, shards, np.full(1, busiest))[:, 0] if len(experts) else np.empty(0, bool)
        shards, experts = shards[is_free], experts[is_free]
        return (
            np.concatenate([shards, others]),
            np.concatenate([experts, np.full(len(others), -1)]),
            np.concatenate([self._heat[experts], np.zeros(len(others))]),
        )

    def _is_bound(
        self, experts: NDArray[np.int64], source: int | NDArray[np.int64], targets: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """(experts, targets): whether a copy may not go there because all copies would then be in one domain."""
        domains = self._room.domains
        inside = (np.arange(domains.max() + 1)[:, None] == domains) @ self.held.astype(np.int64)
        held = self.held.sum(axis=0)[experts]
        leaves = np.reshape(domains[source], (-1, 1)) != domains[targets]
        fills: NDArray[np.bool_] = (held - 1)[:, None] == inside[domains[targets]][:, experts].T
        bound: NDArray[np.bool_] = leaves & fills & (held >= 2)[:, None]
        return bound

    def _place(self, expert: int, left: int) -> int | None:
        room, domains = self._room, self._room.domains
        allowed = (self._taken < room.slots) & ~self.held[:, expert]
        taken = domains[self.held[:, expert]]
        if len(taken) and (taken == taken[0]).all():
            allowed = _rather(allowed, domains != taken[0])
        allowed = _rather(allowed, self._taken < room.most)
        if left <= np.maximum(room.least - self._taken, 0).sum():
            allowed = _rather(allowed, self._taken < room.least)
        if not allowed.any():
            return None
        return int(np.where(allowed, self.load + _TIE * room.burden, np.inf).argmin())

    def _make_room(self, expert: int) -> int | None:
        """Where there is room, the expert is already: another one goes there. Gives the shard from which it went."""
        for taker in np.flatnonzero(self._taken < self._room.slots):
            for giver in np.argsort(np.where(self.held[:, expert], np.inf, self.load), kind="stable"):
                movable = np.flatnonzero(self.held[giver] & ~self.held[taker])
                movable = movable[~self._is_bound(movable, int(giver), np.array([taker]))[:, 0]]
                if len(movable) and not self.held[giver, expert]:
                    other = int(movable[self._heat[movable].argmin()])
                    self._remove(int(giver), other)
                    self._add(int(taker), other)
                    return int(giver)
        return None

    def _superfluous(self, expert: int) -> int:
        """The copy on the busiest shard, but none that is alone in its domain while others are not."""
        holders = np.flatnonzero(self.held[:, expert])
        domains = self._room.domains[holders]
        is_alone = (domains[:, None] == domains).sum(axis=1) == 1
        candidates = holders[~is_alone] if not is_alone.all() else holders
        return int(candidates[self.load[candidates].argmax()])

    def _shrink(self, shard: int) -> None:
        """To what fits: experts that have other copies go first, of these the coldest."""
        experts = np.flatnonzero(self.held[shard])
        order = np.lexsort((self._heat[experts], self.held[:, experts].sum(axis=0) == 1))
        for expert in experts[order][: int(self._taken[shard] - self._room.slots[shard])]:
            self._remove(shard, int(expert))

    def _swap(self, busiest: int, given: int, other: int, taken: int) -> None:
        self._remove(busiest, given)
        if taken >= 0:
            self._remove(other, taken)
            self._add(busiest, taken)
        self._add(other, given)

    def _add(self, shard: int, expert: int) -> None:
        self.held[shard, expert] = True
        self._taken[shard] += 1
        self.load[shard] += self._heat[expert]

    def _remove(self, shard: int, expert: int) -> None:
        self.held[shard, expert] = False
        self._taken[shard] -= 1
        self.load[shard] -= self._heat[expert]


def _rather(allowed: NDArray[np.bool_], wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    both: NDArray[np.bool_] = allowed & wanted
    return both if both.any() else allowed
