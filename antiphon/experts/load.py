"""What routers ask of the experts: counted beside the step, decayed exponentially, told and added up."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from antiphon.experts.table import ExpertKey, TrunkRouting

# Calls and pairs that may wait to be counted; who adds more counts them himself.
_WAITING_CALLS: Final = 512
_WAITING_PAIRS: Final = 1 << 15
_WAITING_SECONDS: Final = 1.0
# Names that are watched beside those that are told apart, in case one of them asks clearly more.
_WATCHED_TENANTS: Final = 64
_CLEARLY: Final = 1.1
_HOTTEST: Final = 32
_REST: Final = ""


@dataclass(frozen=True, slots=True, eq=False)
class RowTenants:
    """Whose the rows of a step are."""

    names: tuple[str, ...]
    # int64 (rows): which of the names.
    of_rows: NDArray[np.int64]

    @classmethod
    def of(cls, tenants: Sequence[str]) -> "RowTenants":
        """tenants: of each row."""
        names = tuple(dict.fromkeys(tenants))
        places = {name: place for place, name in enumerate(names)}
        return cls(names, np.fromiter((places[name] for name in tenants), dtype=np.int64, count=len(tenants)))


NOBODYS: Final = RowTenants((), np.empty(0, dtype=np.int64))


class _Call(NamedTuple):
    layer: int
    expert_ids: NDArray[np.int64]
    tenants: RowTenants


class RoutingMeter:
    """Threads of the trunk add, any thread reads."""

    def __init__(
        self,
        layers: int,
        experts: int,
        *,
        half_life_seconds: float,
        most_tenants: int = 16,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Of more than `most_tenants` those that ask most are told apart; the rest is one."""
        self._shape, self._half_life, self._now = (layers, experts), half_life_seconds, now
        self._waiting: deque[_Call] = deque()
        self._waiting_pairs, self._waiting_since = 0, now()
        self._counting = threading.Lock()
        self._decayed_at = now()
        # (1 + most_tenants, layers * experts): the first is the rest, the others are in the order of the names.
        self._pairs = np.zeros((1 + most_tenants, layers * experts))
        self._names: list[str | None] = [_REST] + [None] * most_tenants
        # Pairs by name, also of those who are in the rest.
        self._asked: dict[str, float] = {}

    def add(self, layer: int, expert_ids: NDArray[np.int64], tenants: RowTenants = NOBODYS) -> None:
        """expert_ids (rows * k): of each row its experts, one row after the other; not written again. It is counted
        later."""
        now = self._now()
        if now - self._waiting_since > _WAITING_SECONDS:
            self._count()
        if not self._waiting:
            self._waiting_since = now
        self._waiting.append(_Call(layer, expert_ids, tenants))
        self._waiting_pairs += expert_ids.size
        if len(self._waiting) >= _WAITING_CALLS or self._waiting_pairs >= _WAITING_PAIRS:
            self._count()

    def routing(self, trunk_id: str) -> TrunkRouting:
        """Of this moment."""
        with self._counting:
            self._count_waiting()
            self._decay()
            pairs, names = self._pairs.copy(), list(self._names)
        summed = pairs.sum(axis=0)
        tenants = {name: float(of.sum()) for name, of in zip(names, pairs, strict=True) if name is not None}
        hottest: dict[ExpertKey, dict[str, float]] = {}
        for place in np.argsort(-summed, kind="stable")[:_HOTTEST].tolist():
            layer, expert = divmod(place, self._shape[1])
            of_tenants = zip(names, pairs[:, place].tolist(), strict=True)
            hottest[layer, expert] = {name: each for name, each in of_tenants if name is not None and each > 0}
        asked = summed.reshape(self._shape).astype(np.float32)
        return TrunkRouting(
            trunk_id=trunk_id,
            half_life_seconds=self._half_life,
            pairs=asked,
            tenants={name: each for name, each in tenants.items() if each > 0},
            hottest={key: of for key, of in hottest.items() if of},
        )

    def _count(self) -> None:
        with self._counting:
            self._count_waiting()

    def _count_waiting(self) -> None:
        calls = [self._waiting.popleft() for _ in range(len(self._waiting))]
        self._waiting_pairs = 0
        if not calls:
            return
        self._decay()
        sizes = [call.expert_ids.size for call in calls]
        places = np.concatenate([call.expert_ids for call in calls])
        places += np.repeat([call.layer * self._shape[1] for call in calls], sizes)
        kinds = [(call.tenants, size) for call, size in zip(calls, sizes, strict=True)]
        owners = {kind: self._owners(*kind) for kind in dict.fromkeys(kinds)}
        places += np.concatenate([owners[kind] for kind in kinds]) * self._pairs.shape[1]
        kept = 0.5 ** ((self._decayed_at - self._waiting_since) / self._half_life)
        np.add.at(self._pairs.reshape(-1), places, kept)
        self._watch(Counter(kinds), kept)

    def _owners(self, tenants: RowTenants, pairs: int) -> NDArray[np.int64]:
        """(pairs): under which of the names each counts."""
        if not len(tenants.of_rows):
            return np.zeros(pairs, dtype=np.int64)
        places = np.array([self._place(name) for name in tenants.names], dtype=np.int64)
        return np.repeat(places[tenants.of_rows], pairs // len(tenants.of_rows))

    def _place(self, name: str) -> int:
        if name in self._names:
            return self._names.index(name)
        if None not in self._names:
            return 0
        place = self._names.index(None)
        self._names[place] = name
        return place

    def _watch(self, kinds: Counter[tuple[RowTenants, int]], kept: float) -> None:
        """kinds: of calls by whose rows and how many pairs they were of, how many there were."""
        for (tenants, pairs), calls in kinds.items():
            rows = np.bincount(tenants.of_rows, minlength=len(tenants.names)).tolist()
            for name, count in zip(tenants.names, rows, strict=True):
                pairs_of_name = kept * calls * count * pairs / len(tenants.of_rows)
                self._asked[name] = self._asked.get(name, 0.0) + pairs_of_name
        others = sorted(self._asked.keys() - set(self._names), key=lambda name: -self._asked[name])
        for name in others[_WATCHED_TENANTS:]:
            del self._asked[name]
        named = [name for name in self._names[1:] if name is not None]
        if others and named:
            self._replace(min(named, key=lambda name: self._asked.get(name, 0.0)), others[0])

    def _replace(self, least: str, other: str) -> None:
        """Who is in the rest and asks clearly more than the least of those that are told apart takes his place."""
        if self._asked[other] > _CLEARLY * self._asked.get(least, 0.0):
            place = self._names.index(least)
            self._pairs[0] += self._pairs[place]
            self._pairs[place] = 0.0
            self._names[place] = other

    def _decay(self) -> None:
        now = self._now()
        kept = 0.5 ** ((now - self._decayed_at) / self._half_life)
        self._pairs *= kept
        self._asked = {name: pairs * kept for name, pairs in self._asked.items()}
        self._decayed_at = now


def added(routings: Iterable[TrunkRouting], shape: tuple[int, int], half_life_seconds: float) -> TrunkRouting:
    """What all trunks ask of experts (layers, experts), decayed to this moment, as if counted with that half-life. Of
    each trunk the latest, however many shards it told."""
    latest: dict[str, TrunkRouting] = {}
    for each in sorted(routings, key=lambda each: -each.age_seconds):
        latest[each.trunk_id] = each
    pairs = np.zeros(shape, dtype=np.float64)
    tenants: dict[str, float] = {}
    hottest: dict[ExpertKey, dict[str, float]] = {}
    for each in latest.values():
        scale = 0.5 ** (each.age_seconds / each.half_life_seconds) * half_life_seconds / each.half_life_seconds
        pairs += each.pairs * scale
        _add(tenants, each.tenants, scale)
        for key, of in each.hottest.items():
            _add(hottest.setdefault(key, {}), of, scale)
    ordered = sorted(hottest, key=lambda key: (-pairs[key], *key))[:_HOTTEST]
    return TrunkRouting(
        trunk_id=_REST,
        half_life_seconds=half_life_seconds,
        pairs=pairs.astype(np.float32),
        tenants=tenants,
        hottest={key: hottest[key] for key in ordered},
    )


def _add(sums: dict[str, float], values: Mapping[str, float], scale: float) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + value * scale
