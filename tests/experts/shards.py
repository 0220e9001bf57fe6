"""Descriptions of shards that nobody runs."""

from collections.abc import Iterable

from antiphon.experts.table import ExpertKey, ExpertModel, ShardDescription, ShardLoad

MODEL = ExpertModel("float32", 2, 4, 2, 8, 4, "print")


def description(
    name: str,
    held: Iterable[ExpertKey] = (),
    *,
    model: ExpertModel = MODEL,
    host_id: str = "here",
    zone: str = "",
    is_draining: bool = False,
    load: ShardLoad = ShardLoad(),  # noqa: B008 - immutable
) -> ShardDescription:
    return ShardDescription(
        address=f"{name}:1",
        shard_id=name,
        host_id=host_id,
        zone=zone,
        socket_path="",
        model=model,
        epoch=0,
        held=frozenset(held),
        loading_count=0,
        capacity=model.layers * model.experts,
        is_draining=is_draining,
        load=load,
    )
