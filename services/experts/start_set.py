"""What a shard holds when it begins, before anybody assigns it anything."""

from antiphon.errors import InvalidInput
from antiphon.experts.table import ExpertKey, ExpertModel


def start_set(holds: str, copies: int, model: ExpertModel) -> frozenset[ExpertKey]:
    """holds: "all", "none", or "1/4" for the first of four shards, among which each expert has `copies`."""
    if holds == "all":
        return model.keys
    if holds == "none":
        return frozenset()
    number, _, of = holds.partition("/")
    place, shards = int(number) - 1, int(of)
    if place >= shards or copies > shards:
        raise InvalidInput(
            f"Expected a shard among those that there are, and no more copies than shards; came {holds} with {copies}."
        )
    return frozenset(key for key in model.keys if (place - sum(key)) % shards < copies)
