"""What an operator wants to know of the expert shards: how busy they are, what they hold, what is hot and for whom."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from antiphon.errors import NotFound
from antiphon.experts.balance import imbalances, overall_imbalance, shard_loads
from antiphon.experts.load import added
from antiphon.experts.table import ExpertKey, ExpertModel, ShardDescription, TrunkRouting

_HALF_LIFE_SECONDS: Final = 60.0
_HOTTEST: Final = 16
_LISTED: Final = 16


class ShardCard(BaseModel):
    address: str
    shard_id: str
    host: str
    zone: str
    experts: int
    capacity: int
    loading: int
    is_draining: bool
    epoch: int
    trunks: int
    utilisation: float = Field(description="Share of the latest seconds in which it computed.")
    queued_p95_ms: float
    computed_p50_ms: float
    calls: int
    pairs: int
    load: float = Field(description="Of all that is asked of experts, the share that its copies get.")


class TenantShare(BaseModel):
    tenant: str = Field(description="Empty: all who are not among the busiest.")
    share: float


class HotExpert(BaseModel):
    layer: int
    expert: int
    share: float = Field(description="Of what is asked of its layer.")
    copies: list[str] = Field(description="Addresses of the shards that hold it.")
    tenants: list[TenantShare]


class ExpertsOverview(BaseModel):
    shards: list[ShardCard]
    silent: list[str] = Field(description="Addresses at which nobody answers.")
    strangers: list[str] = Field(description="Addresses of shards with experts of another model.")
    layers: int
    experts: int = Field(description="Of each layer.")
    copies: int
    least_copies: int
    most_copies: int
    missing: int = Field(description="Experts without a copy.")
    missing_experts: list[tuple[int, int]] = Field(description="The first of them, as layer and expert.")
    imbalance: float = Field(description="The busiest shard's load over the mean, of all layers together.")
    layer_imbalances: list[float] = Field(description="The same of each layer, which is what its calls wait for.")
    pairs: float = Field(description="(row, expert) pairs asked for lately; what is older than a minute counts half.")
    hottest: list[HotExpert]
    tenants: list[TenantShare]


def overview(described: Sequence[ShardDescription], silent: Sequence[str] = ()) -> ExpertsOverview:
    """described: with loads, at least one. Shards of another model than most have are named, no more."""
    if not described:
        raise NotFound(_nobody(silent))
    model = _common(described)
    shards = {each.shard_id: each for each in described if each.model == model}
    known = sorted(shards.values(), key=lambda each: each.address)
    routing = added(
        (each for shard in known for each in shard.routings), (model.layers, model.experts), _HALF_LIFE_SECONDS
    )
    held = _held(known, model)
    staying = held[[not each.is_draining for each in known]] if not all(each.is_draining for each in known) else held
    weights = _weights(routing.pairs)
    copies = held.sum(axis=0)
    missing = [(int(layer), int(expert)) for layer, expert in np.argwhere(copies == 0)]
    return ExpertsOverview(
        shards=_cards(known, shard_loads(weights, held).sum(axis=1) / model.layers),
        silent=sorted(silent),
        strangers=sorted(each.address for each in described if each.model != model),
        layers=model.layers,
        experts=model.experts,
        copies=int(copies.sum()),
        least_copies=int(copies.min()),
        most_copies=int(copies.max()),
        missing=len(missing),
        missing_experts=missing[:_LISTED],
        imbalance=overall_imbalance(weights, staying),
        layer_imbalances=imbalances(weights, staying).tolist(),
        pairs=float(routing.pairs.sum()),
        hottest=_hottest(routing, weights, known, held),
        tenants=_shares(routing.tenants),
    )


def _nobody(silent: Sequence[str]) -> str:
    if silent:
        return f"Expected an expert shard to answer; none does at {', '.join(sorted(silent)[:_LISTED])}."
    return (
        "This platform has no expert shards: its Thinker computes experts itself. Start shards (python -m services "
        "experts), name them in ANTIPHON_DIRECTORY_EXPERTS and set ANTIPHON_THINKER_EXPERTS=remote."
    )


def _common(described: Sequence[ShardDescription]) -> ExpertModel:
    models = [each.model for each in described]
    return max(models, key=models.count)


def _held(shards: Sequence[ShardDescription], model: ExpertModel) -> NDArray[np.bool_]:
    """(shards, layers, experts)"""
    held = np.zeros((len(shards), model.layers, model.experts), dtype=np.bool_)
    for place, shard in enumerate(shards):
        if shard.held:
            held[place][tuple(np.array(sorted(shard.held)).T)] = True
    return held


def _weights(pairs: NDArray[np.float32]) -> NDArray[np.float64]:
    """(layers, experts): shares of their layer; alike where nothing was asked."""
    asked = pairs.astype(np.float64)
    asked[asked.sum(axis=1) == 0] = 1.0
    shares: NDArray[np.float64] = asked / asked.sum(axis=1, keepdims=True)
    return shares


def _cards(shards: Sequence[ShardDescription], loads: NDArray[np.float64]) -> list[ShardCard]:
    return [
        ShardCard(
            address=shard.address,
            shard_id=shard.shard_id,
            host=shard.host_id,
            zone=shard.zone,
            experts=len(shard.held),
            capacity=shard.capacity,
            loading=shard.loading_count,
            is_draining=shard.is_draining,
            epoch=shard.epoch,
            trunks=shard.load.trunks,
            utilisation=shard.load.utilisation,
            queued_p95_ms=shard.load.queued_p95_microseconds / 1000,
            computed_p50_ms=shard.load.computed_p50_microseconds / 1000,
            calls=shard.load.calls,
            pairs=shard.load.pairs,
            load=float(load),
        )
        for shard, load in zip(shards, loads, strict=True)
    ]


def _hottest(
    routing: TrunkRouting, weights: NDArray[np.float64], shards: Sequence[ShardDescription], held: NDArray[np.bool_]
) -> list[HotExpert]:
    keys: list[ExpertKey] = sorted(routing.hottest, key=lambda key: (-weights[key], *key))[:_HOTTEST]
    return [
        HotExpert(
            layer=layer,
            expert=expert,
            share=float(weights[layer, expert]),
            copies=[shards[place].address for place in np.flatnonzero(held[:, layer, expert]).tolist()],
            tenants=_shares(routing.hottest[layer, expert]),
        )
        for layer, expert in keys
    ]


def _shares(pairs: Mapping[str, float]) -> list[TenantShare]:
    whole = sum(pairs.values()) or 1.0
    ordered = sorted(pairs.items(), key=lambda each: (-each[1], each[0]))
    return [TenantShare(tenant=name, share=each / whole) for name, each in ordered]
