"""What shards and trunks tell of themselves, as messages and back."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Final

import numpy as np

from antiphon.errors import InvalidInput
from antiphon.experts.table import ExpertKey, ExpertModel, ShardDescription, ShardLoad, TrunkRouting
from antiphon.v1 import expert_service_pb2 as messages
from antiphon.wire import arrays

_MOST_TENANTS: Final = 1024
_MOST_NAME_CHARACTERS: Final = 256


def layer_experts(keys: Iterable[ExpertKey]) -> list[messages.LayerExperts]:
    return [
        messages.LayerExperts(layer=layer, experts=[expert for _, expert in group])
        for layer, group in groupby(sorted(keys), key=itemgetter(0))
    ]


def expert_keys(layers: Iterable[messages.LayerExperts], model: ExpertModel) -> frozenset[ExpertKey]:
    """Raises InvalidInput for what the model does not have."""
    keys = []
    for each in layers:
        experts = list(each.experts)
        if not 0 <= each.layer < model.layers or (experts and not 0 <= min(experts) <= max(experts) < model.experts):
            raise InvalidInput(
                f"experts: expected {model.experts} experts of {model.layers} layers; came layer {each.layer} with "
                f"{len(experts)} experts, up to {max(experts, default=0)}."
            )
        keys += [(each.layer, expert) for expert in experts]
    return frozenset(keys)


def model_message(model: ExpertModel) -> messages.ExpertModel:
    return messages.ExpertModel(
        data_type=model.data_type,
        layers=model.layers,
        experts=model.experts,
        experts_per_token=model.experts_per_token,
        width=model.width,
        expert_width=model.expert_width,
        fingerprint=model.fingerprint,
    )


def load_message(load: ShardLoad) -> messages.ShardLoad:
    return messages.ShardLoad(
        queued_p95_microseconds=load.queued_p95_microseconds,
        computed_p50_microseconds=load.computed_p50_microseconds,
        utilisation=load.utilisation,
        trunks=load.trunks,
        calls=load.calls,
        pairs=load.pairs,
    )


def read_description(told: messages.DescribeResponse, address: str) -> ShardDescription:
    """Raises InvalidInput when it contradicts itself."""
    model = _model(told.model)
    return ShardDescription(
        address=address,
        shard_id=told.shard_id,
        host_id=told.host_id,
        zone=told.zone,
        socket_path=told.socket_path,
        model=model,
        epoch=told.epoch,
        held=expert_keys(told.held, model),
        loading_count=told.loading_count,
        capacity=told.capacity,
        is_draining=told.is_draining,
        load=_load(told.load),
        routings=tuple(read_routing(each, model) for each in told.routings),
    )


def routing_message(routing: TrunkRouting) -> messages.TrunkRouting:
    return messages.TrunkRouting(
        trunk_id=routing.trunk_id,
        half_life_seconds=routing.half_life_seconds,
        pairs=arrays.pack(routing.pairs),
        tenants=_tenant_messages(routing.tenants),
        hottest=[
            messages.ExpertRouting(layer=layer, expert=expert, tenants=_tenant_messages(tenants))
            for (layer, expert), tenants in routing.hottest.items()
        ],
        age_seconds=routing.age_seconds,
    )


def read_routing(told: messages.TrunkRouting, model: ExpertModel) -> TrunkRouting:
    """Raises InvalidInput unless it is of this model and bounded."""
    listed = len(told.tenants) + sum(len(each.tenants) for each in told.hottest)
    if not 0 < len(told.trunk_id) <= _MOST_NAME_CHARACTERS or listed > _MOST_TENANTS:
        raise InvalidInput(
            f"routing: expected a trunk_id of 1 to {_MOST_NAME_CHARACTERS} characters and at most {_MOST_TENANTS} "
            f"tenants; came {len(told.trunk_id)} characters and {listed} tenants."
        )
    pairs = arrays.unpack_floats(told.pairs, name="routing.pairs", shape=(model.layers, model.experts))
    if not (np.isfinite(pairs).all() and (pairs >= 0).all()):
        raise InvalidInput("routing.pairs: expected finite numbers from zero up; came others.", param="routing.pairs")
    if not (told.half_life_seconds > 0 and told.age_seconds >= 0):
        raise InvalidInput(
            f"routing: expected a half-life above zero and an age from zero up; came {told.half_life_seconds} s and "
            f"{told.age_seconds} s."
        )
    return TrunkRouting(
        trunk_id=told.trunk_id,
        half_life_seconds=told.half_life_seconds,
        pairs=pairs,
        tenants=_tenants(told.tenants),
        hottest={
            (each.layer, each.expert): _tenants(each.tenants)
            for each in told.hottest
            if 0 <= each.layer < model.layers and 0 <= each.expert < model.experts
        },
        age_seconds=told.age_seconds,
    )


def _tenant_messages(tenants: Mapping[str, float]) -> list[messages.TenantRouting]:
    return [messages.TenantRouting(tenant=name, pairs=pairs) for name, pairs in tenants.items()]


def _tenants(told: Iterable[messages.TenantRouting]) -> dict[str, float]:
    return {each.tenant[:_MOST_NAME_CHARACTERS]: each.pairs for each in told}


def _model(told: messages.ExpertModel) -> ExpertModel:
    return ExpertModel(
        data_type=told.data_type,
        layers=told.layers,
        experts=told.experts,
        experts_per_token=told.experts_per_token,
        width=told.width,
        expert_width=told.expert_width,
        fingerprint=told.fingerprint,
    )


def _load(told: messages.ShardLoad) -> ShardLoad:
    return ShardLoad(
        queued_p95_microseconds=told.queued_p95_microseconds,
        computed_p50_microseconds=told.computed_p50_microseconds,
        utilisation=told.utilisation,
        trunks=told.trunks,
        calls=told.calls,
        pairs=told.pairs,
    )
