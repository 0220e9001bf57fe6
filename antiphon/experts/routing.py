"""Which copy computes which (row, expert) pair of one layer's call."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiphon.experts.table import LayerCopies, ShardDescription

# Pairs of one expert that are worth being split over its copies, since each copy reads all of the expert's weights.
LEAST_SPLIT_PAIRS: Final = 64
# What a shard elsewhere has to be behind in pairs, before it is asked instead of one of the same host.
_FAR_PAIRS: Final = 16.0
# One that drains is asked where there is no other.
_DRAINING_PAIRS: Final = 1e9
# A shard without a moment to spare is not slower than so many idle ones.
_MOST_PAIR_COST: Final = 8.0


@dataclass(frozen=True, slots=True)
class ShardCost:
    """What it costs to ask a shard, in pairs of an idle one."""

    # Before the first pair.
    first: float = 0.0
    # For every pair.
    pair: float = 1.0

    @classmethod
    def of(cls, shard: ShardDescription, host_id: str) -> "ShardCost":
        """For a trunk on that host: locality first, unless the shard has clearly more to do than those elsewhere; a
        pair waits for what others ask of the shard, as long as it is busy (1 / (1 - utilisation))."""
        first = (0.0 if shard.host_id == host_id else _FAR_PAIRS) + _DRAINING_PAIRS * shard.is_draining
        idle = max(1.0 - shard.load.utilisation, 1.0 / _MOST_PAIR_COST)
        return cls(first, 1.0 / idle)


@dataclass(frozen=True, slots=True)
class Routes:
    # Of each shard that is asked, by its place in the table: int64, ascending, which of the pairs.
    pairs: dict[int, NDArray[np.int64]]
    # Experts that were asked for and have no copy; their pairs are in no shard's.
    missing: tuple[int, ...] = ()


def route(
    experts: NDArray[np.int64], copies: LayerCopies, costs: Sequence[ShardCost], *, may_split: bool = False
) -> Routes:
    """experts (pairs): of each pair its expert. Every pair goes to one shard that holds it: first those without a
    choice, then the expert with the most pairs to the copy that would have least to do with them. may_split: also parts
    of an expert's pairs; otherwise all of them go to one copy, whose rounding is then that of all pairs together."""
    if copies.only is not None:
        return Routes({copies.only: np.arange(len(experts))} if len(experts) else {})
    shards = copies.sole[experts]
    missing: tuple[int, ...] = ()
    if shards.size and shards.min() < 0:
        missing = _choose(shards, experts, copies, costs, may_split=may_split)
    counts = np.bincount(shards + 1).tolist()
    pairs = {shard: np.flatnonzero(shards == shard) for shard, count in enumerate(counts[1:]) if count}
    return Routes(pairs, missing)


def _choose(
    shards: NDArray[np.int64],
    experts: NDArray[np.int64],
    copies: LayerCopies,
    costs: Sequence[ShardCost],
    *,
    may_split: bool,
) -> tuple[int, ...]:
    """Writes the shards of those pairs that have none yet, but for the missing experts, which it gives."""
    sole = np.bincount(shards + 1, minlength=len(costs) + 1).tolist()[1:]
    burdens = [cost.first + cost.pair * count for cost, count in zip(costs, sole, strict=True)]
    counts = Counter(experts[shards < 0].tolist())
    for expert, count in counts.most_common():
        holders = copies.holders[expert]
        if holders:
            pieces = _pieces(count, len(holders) if may_split else 1)
            takers = [_least(holders, burdens, costs, each) for each in pieces]
            shards[experts == expert] = takers[0] if len(pieces) == 1 else np.repeat(takers, pieces)
    return tuple(sorted(expert for expert in counts if not copies.holders[expert]))


def _pieces(pairs: int, holders: int) -> list[int]:
    """Two for each copy, so that they can be packed around what the copies have to do beside, or one where two are not
    worth it."""
    most = pairs // LEAST_SPLIT_PAIRS
    count = max(1, 2 * holders if most >= 2 * holders > 2 else min(holders, most))
    return [pairs // count + (each < pairs % count) for each in range(count)]


def _least(holders: Sequence[int], burdens: list[float], costs: Sequence[ShardCost], pairs: int) -> int:
    """The holder that is ready first with so many pairs more, which it gets."""
    taker = min(holders, key=lambda shard: burdens[shard] + pairs * costs[shard].pair)
    burdens[taker] += pairs * costs[taker].pair
    return taker
