"""Who holds which experts: what each shard tells of itself, and the table that a trunk makes of it."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Layer and expert.
ExpertKey = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ExpertModel:
    """Of the model whose experts these are; trunks and shards work together only where it is equal."""

    # Such as "bfloat16".
    data_type: str
    layers: int
    experts: int
    experts_per_token: int
    width: int
    expert_width: int
    # Of the names of the experts' tensors, the sizes in the config, and some values of one expert a layer.
    fingerprint: str

    @property
    def keys(self) -> frozenset[ExpertKey]:
        return frozenset((layer, expert) for layer in range(self.layers) for expert in range(self.experts))


@dataclass(frozen=True, slots=True)
class ShardLoad:
    """Of a shard's latest calls; an idle one has zeros everywhere."""

    queued_p95_microseconds: int = 0
    computed_p50_microseconds: int = 0
    # Share of the latest seconds in which it computed, from 0 to 1.
    utilisation: float = 0.0
    trunks: int = 0
    # Since it began.
    calls: int = 0
    pairs: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class TrunkRouting:
    """What a trunk's routers asked for: (row, expert) pairs, decayed exponentially."""

    trunk_id: str
    half_life_seconds: float
    # Float32 (layers, experts).
    pairs: NDArray[np.float32]
    # Of the busiest tenants, summed over the layers' experts; the rest is under an empty name.
    tenants: Mapping[str, float] = field(default_factory=dict)
    # The hottest experts, hottest first, and by tenants whose rows they get.
    hottest: Mapping[ExpertKey, Mapping[str, float]] = field(default_factory=dict)
    # Since it was measured.
    age_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ShardDescription:
    """What a shard told when it was asked last."""

    # Where it was asked: a gRPC target.
    address: str
    # Of its process; another one has another.
    shard_id: str
    # Trunks and shards of one host share memory. Experts have copies in different zones.
    host_id: str
    zone: str
    # Of its Unix socket, for trunks of the same host; empty without one.
    socket_path: str
    model: ExpertModel
    # Of its latest assignment.
    epoch: int
    # What is ready to be computed.
    held: frozenset[ExpertKey]
    # What is being loaded.
    loading_count: int
    # (layer, expert) that fit.
    capacity: int
    is_draining: bool = False
    load: ShardLoad = ShardLoad()
    # As reported by trunks, if it was asked for them.
    routings: tuple[TrunkRouting, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class LayerCopies:
    """Which shards hold the experts of one layer, by their places in the table."""

    # Of each expert all of them, ascending.
    holders: tuple[tuple[int, ...], ...]
    # Int64 (experts): the only one, or -1.
    sole: NDArray[np.int64]
    # The only one of all of them, if there is such a shard.
    only: int | None

    @classmethod
    def of(cls, holders: Iterable[Iterable[int]]) -> "LayerCopies":
        known = tuple(tuple(each) for each in holders)
        only = known[0][0] if len(set(known)) == 1 and len(known[0]) == 1 else None
        return cls(known, np.array([each[0] if len(each) == 1 else -1 for each in known], dtype=np.int64), only)


class ShardTable:
    """Of some shards of one model, the live copies of each (layer, expert). Immutable."""

    def __init__(self, model: ExpertModel, shards: Sequence[ShardDescription]) -> None:
        self.model, self.shards = model, tuple(shards)
        holders: list[list[list[int]]] = [[[] for _ in range(model.experts)] for _ in range(model.layers)]
        for place, shard in enumerate(self.shards):
            for layer, expert in shard.held:
                holders[layer][expert].append(place)
        self._copies = tuple(LayerCopies.of(layer) for layer in holders)

    def told_anew(self, shards: Sequence[ShardDescription]) -> "ShardTable":
        """The table of these, with less to do where none of them has other experts than before."""
        before = [(each.shard_id, each.held) for each in self.shards]
        if before != [(each.shard_id, each.held) for each in shards]:
            return ShardTable(self.model, shards)
        renewed = copy(self)
        renewed.shards = tuple(shards)
        return renewed

    def copies(self, layer: int) -> LayerCopies:
        return self._copies[layer]

    def missing(self) -> list[ExpertKey]:
        """Those that no shard holds."""
        return [
            (layer, expert)
            for layer, copies in enumerate(self._copies)
            for expert, shards in enumerate(copies.holders)
            if not shards
        ]
