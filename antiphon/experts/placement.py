"""Which shard shall hold which experts: a pure function of what is asked of them, of the shards, and of where they are.

Greedy replication of what is hot and packing by what each shard has to do are the idea of DeepSeek's EPLB
(https://github.com/deepseek-ai/EPLB); here a placement starts from the one there is and changes what has to change.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import InvalidInput
from antiphon.experts.balance import imbalances
from antiphon.experts.copy_counts import copy_counts, other_counts
from antiphon.experts.packing import Evenness, Held, LayerRoom, pack_layer
from antiphon.experts.spreading import confined, domains_of, spread
from antiphon.experts.table import ExpertKey


@dataclass(frozen=True, slots=True)
class ShardRoom:
    """A shard that may be given experts; one that drains is none."""

    name: str
    # (layer, expert) that fit.
    capacity: int
    host: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class PlacementRules:
    # Of each expert, as far as there is room; one of each comes before all else.
    least_copies: int = 1
    # Copies beyond one of each, as a share of the experts; None: as many as fit.
    redundancy: float | None = None
    # Room that each shard keeps, where there is enough, so that experts can be loaded before others are given up.
    spare_experts: int = 1
    # A layer is left as it is while its busiest shard has at most so many times the mean to do ...
    keep_below: float = 1.15
    # ... and if not, it is changed until it has at most so many, or gets no better.
    aim: float = 1.05
    # What that ratio must at least come down by, or the change does not pay ...
    least_gain: float = 0.03
    # ... and by so much for every expert that has to be loaded for it.
    load_cost: float = 0.001
    # A copy that is there counts as if its expert were so many times as hot.
    favour: float = 1.25
    # Of each expert, taken for granted: little traffic moves nothing.
    prior_pairs: float = 8.0


# Of the mean load, what a shard that is new gets at least, if it can.
_NEW_SHARE: Final = 0.9
# Of the copies that there may be; more are not worth a change.
_ENOUGH: Final = 0.9


class Placement:
    """Of shards by their names; held: bool (shards, layers, experts)."""

    def __init__(self, names: Sequence[str], held: Held) -> None:
        self.names, self.held = tuple(names), held

    def experts(self, name: str) -> frozenset[ExpertKey]:
        return _keys(self.held[self.names.index(name)])

    def by_shard(self) -> dict[str, frozenset[ExpertKey]]:
        return {name: _keys(held) for name, held in zip(self.names, self.held, strict=True)}

    @property
    def missing(self) -> frozenset[ExpertKey]:
        """For which there was no room."""
        return _keys(self.held.sum(axis=0) == 0)


def place(
    pairs: NDArray[np.floating],
    shards: Iterable[ShardRoom],
    rules: PlacementRules,
    current: Mapping[str, Set[ExpertKey]],
) -> Placement:
    """pairs (layers, experts): how many were asked for. The same arguments give the same placement. Where all shards
    together are too small, what is there stays, then the hottest experts are placed, and the others are missing."""
    known = sorted(shards, key=lambda shard: shard.name)
    if not known:
        raise InvalidInput("A placement needs at least one shard.")
    planner = _Planner(_weights(pairs, rules), known, rules, _array(current, known, pairs.shape))
    return Placement([shard.name for shard in known], planner.plan())


class _Planner:
    def __init__(
        self, weights: NDArray[np.float64], shards: Sequence[ShardRoom], rules: PlacementRules, held: Held
    ) -> None:
        self._weights, self._rules, self._held = weights, rules, held
        self._limits = _limits([shard.capacity for shard in shards], weights.size, rules.spare_experts)
        self._total = _total(weights.size, self._limits, rules)
        # How many experts each shard holds if they are spread by what fits.
        self._fair = self._total * self._limits / max(1, self._limits.sum())
        self._domains = domains_of([shard.zone for shard in shards], [shard.host for shard in shards])

    def plan(self) -> Held:
        """Layers that are well stay. If the others do not get well beside them, all are placed anew."""
        everything = np.ones(len(self._weights), dtype=np.bool_)
        if self._is_uneven():
            return self._changed(everything, self._wanted(_NEW_SHARE))
        wanted = self._wanted()
        unwell = self._broken(self._held) | (imbalances(self._weights, self._held) > self._rules.keep_below)
        kept = int(self._held[:, ~unwell].sum())
        if kept + self._rules.least_copies * self._weights[unwell].size > self._total:
            return self._changed(everything, wanted)
        held = self._changed(unwell, wanted) if unwell.any() else self._held
        if not unwell.all() and imbalances(self._weights, held).max() > self._rules.keep_below:
            held = self._changed(everything, wanted)
        return held

    def _wanted(self, least: float = 0.0) -> Evenness:
        """Where there is no room for all, nothing is moved to be even."""
        has_room = self._total >= self._weights.size
        return Evenness(self._rules.keep_below if has_room else np.inf, least if has_room else 0.0, self._rules.aim)

    def _is_uneven(self) -> bool:
        """A shard is new, or has more than it shall have, or there are far fewer copies than there may be, or more."""
        held = self._held.sum(axis=(1, 2))
        is_off = (held < self._fair / 2).any() or (held > self._limits).any()
        return bool(is_off or not _ENOUGH * self._total <= held.sum() <= self._total)

    def _broken(self, held: Held) -> NDArray[np.bool_]:
        """(layers): an expert has no copy, too few, or all in one domain."""
        copies = held.sum(axis=0)
        least = min(self._rules.least_copies, len(held), self._total // self._weights.size)
        broken: NDArray[np.bool_] = ((copies < max(least, 1)) | confined(held, self._domains)).any(axis=1)
        return broken

    def _changed(self, layers: NDArray[np.bool_], wanted: Evenness) -> Held:
        """A placement in which these layers have been placed anew, as far as that pays."""
        counts = self._counts(layers)
        held = self._held.copy()
        is_pending = layers.copy()
        for layer in np.flatnonzero(layers):
            room = self._room(int(layer), counts, held, is_pending)
            held[:, layer] = self._placed(int(layer), counts[layer], room, wanted)
            is_pending[layer] = False
        spread(held, self._weights / np.maximum(held.sum(axis=0), 1), self._limits, self._domains)
        return held if self._is_uneven() else self._paying(held)

    def _counts(self, layers: NDArray[np.bool_]) -> NDArray[np.int64]:
        present: NDArray[np.int64] = self._held.sum(axis=0)
        kept: NDArray[np.int64] = present * ~layers[:, None]
        changed = copy_counts(
            self._weights[layers],
            present[layers],
            least=self._rules.least_copies,
            most=len(self._held),
            total=self._total - int(kept.sum()),
            favour=self._rules.favour,
        )
        kept[layers] = changed
        return kept

    def _placed(self, layer: int, counts: NDArray[np.int64], room: LayerRoom, wanted: Evenness) -> Held:
        """(shards, experts): with the counts given, or with those that can be packed better."""
        rules, weights, start = self._rules, self._weights[layer], self._held[:, layer]
        best = pack_layer(weights, counts, start, room, wanted)
        if _imbalance(weights, best) <= rules.keep_below or counts.min() < 1:
            return best
        others = other_counts(weights, rules.least_copies, len(start), int(counts.sum()))
        tries = [pack_layer(weights, other, start, room, wanted) for other in others]
        tries.append(pack_layer(weights, counts, np.zeros_like(start), room, wanted))
        return min((best, *tries), key=lambda held: _imbalance(weights, held) + rules.load_cost * _loads(start, held))

    def _room(self, layer: int, counts: NDArray[np.int64], held: Held, is_pending: NDArray[np.bool_]) -> LayerRoom:
        """is_pending (layers): still to be placed, this one included. What the others of them will give up counts as
        free already."""
        is_fixed = ~is_pending[:, None]
        heat = self._weights / np.maximum(held.sum(axis=0), 1)
        fixed = (held & is_fixed).sum(axis=(1, 2))
        kept = np.minimum(1.0, counts / np.maximum(held.sum(axis=0), 1)) * is_pending[:, None]
        kept[layer] = 0.0
        slots = self._limits - fixed - np.floor((held * kept).sum(axis=(1, 2)) + 1e-9).astype(np.int64)
        share = (self._fair - fixed) / is_pending.sum()
        most, least = np.ceil(share - 1e-9).astype(np.int64), np.floor(share + 1e-9).astype(np.int64)
        burden = (held * is_fixed * heat).sum(axis=(1, 2))
        return LayerRoom(np.maximum(slots, 0), np.maximum(most, 1), least, self._domains, burden)

    def _paying(self, held: Held) -> Held:
        """Layers that did nothing wrong before and have not become much better are as they were, if there is room."""
        rules = self._rules
        gain = imbalances(self._weights, self._held) - imbalances(self._weights, held)
        loads = (held & ~self._held).sum(axis=(0, 2))
        pays = gain >= rules.least_gain + rules.load_cost * loads
        for layer in np.flatnonzero(~self._broken(self._held) & ~pays):
            as_it_was = held.copy()
            as_it_was[:, layer] = self._held[:, layer]
            if (as_it_was.sum(axis=(1, 2)) <= self._limits).all():
                held = as_it_was
        return held


def _imbalance(weights: NDArray[np.float64], held: Held) -> float:
    return float(imbalances(weights[None], held[:, None])[0])


def _loads(before: Held, after: Held) -> int:
    return int((after & ~before).sum())


def _weights(pairs: NDArray[np.floating], rules: PlacementRules) -> NDArray[np.float64]:
    """Each layer's share of what is asked of it; every token asks every layer."""
    known = np.asarray(pairs, dtype=np.float64) + rules.prior_pairs
    shares: NDArray[np.float64] = known / known.sum(axis=1, keepdims=True)
    return shares


def _limits(capacities: Sequence[int], experts: int, spare: int) -> NDArray[np.int64]:
    """(shards): one that can hold everything moves nothing, and needs no room for it."""
    full = np.minimum(np.array(capacities, dtype=np.int64), experts)
    with_room = np.where(full == experts, full, np.maximum(full - spare, 0))
    return with_room if with_room.sum() >= experts else full


def _total(experts: int, limits: NDArray[np.int64], rules: PlacementRules) -> int:
    fits = int(limits.sum())
    if rules.redundancy is None:
        return fits
    return min(fits, int(np.ceil(experts * max(rules.least_copies, 1 + rules.redundancy) - 1e-9)))


def _array(current: Mapping[str, Set[ExpertKey]], shards: Sequence[ShardRoom], shape: tuple[int, ...]) -> Held:
    held = np.zeros((len(shards), *shape), dtype=np.bool_)
    for place, shard in enumerate(shards):
        keys = current.get(shard.name)
        if keys:
            held[place][tuple(np.array(list(keys)).T)] = True
    return held


def _keys(held: NDArray[np.bool_]) -> frozenset[ExpertKey]:
    """(layers, experts)"""
    layers, experts = np.nonzero(held)
    return frozenset(zip(layers.tolist(), experts.tolist(), strict=True))
