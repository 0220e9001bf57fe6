"""How long a placement of the real Thinker's experts takes and how even it is, under Zipf's law; and what it costs a
trunk to count what is asked of them.

    python -m benchmarks.expert_placement
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.experts.balance import imbalances, least_imbalance
from antiphon.experts.load import RoutingMeter, RowTenants
from antiphon.experts.moves import MoveRules, ShardState, next_steps
from antiphon.experts.placement import Placement, PlacementRules, ShardRoom, place

LAYERS, EXPERTS, EXPERTS_PER_TOKEN = 48, 128, 8
REDUNDANCY = 0.25
RULES = PlacementRules(redundancy=REDUNDANCY)
SHARDS = (4, 8, 16, 32, 64)
EXPONENTS = (0.5, 1.0, 1.5, 2.0)
REPEATS = 5


@dataclass(frozen=True)
class Row:
    shards: int
    exponent: float
    # Of the least even layer, and what no placement can fall below.
    imbalance: float
    bound: float
    anew_ms: float
    unchanged_ms: float
    # After a shard was lost: experts to be loaded, of which so many were on it.
    lost: int
    loads: int
    step_ms: float


def zipf(exponent: float) -> NDArray[np.float64]:
    dice, law = np.random.default_rng(0), np.arange(1, EXPERTS + 1) ** -exponent
    return np.stack([dice.permutation(law / law.sum()) for _ in range(LAYERS)]) * 1e6


def rooms(count: int) -> list[ShardRoom]:
    capacity = -(-int(LAYERS * EXPERTS * (1 + REDUNDANCY)) // count) + RULES.spare_experts
    return [ShardRoom(f"s{each:02}", capacity, f"host{each // 2}", f"zone{each % 3}") for each in range(count)]


def median_ms(work: Callable[[], object]) -> float:
    """Of the processor, which is not shared with whatever else runs."""
    seconds = []
    for _ in range(REPEATS):
        began = time.thread_time()
        work()
        seconds.append(time.thread_time() - began)
    return statistics.median(seconds) * 1000


def measured(count: int, exponent: float) -> Row:
    pairs, shards = zipf(exponent), rooms(count)
    placement = place(pairs, shards, RULES, {})
    held = placement.by_shard()
    after = place(pairs, shards[1:], RULES, held)
    return Row(
        shards=count,
        exponent=exponent,
        imbalance=float(imbalances(pairs, placement.held).max()),
        bound=least_imbalance(pairs[0], count, int(EXPERTS * (1 + REDUNDANCY))),
        anew_ms=median_ms(lambda: place(pairs, shards, RULES, {})),
        unchanged_ms=median_ms(lambda: place(pairs, shards, RULES, held)),
        lost=len(held["s00"]),
        loads=sum(len(experts - held[name]) for name, experts in after.by_shard().items()),
        step_ms=median_ms(lambda: _step(pairs, shards, placement, after)),
    )


def _step(pairs: NDArray[np.float64], shards: list[ShardRoom], before: Placement, after: Placement) -> None:
    held = before.by_shard()
    states = [ShardState(each.name, each.capacity, held[each.name], held[each.name]) for each in shards[1:]]
    next_steps(states, after.by_shard(), pairs, MoveRules())


def rows() -> Iterator[Row]:
    for count in SHARDS:
        for exponent in EXPONENTS:
            yield measured(count, exponent)


def counting_us(row_count: int, steps: int = 200) -> float:
    """Of one layer's call, its part of the counting that is put off included."""
    dice, meter = np.random.default_rng(0), RoutingMeter(LAYERS, EXPERTS, half_life_seconds=60.0)
    asked = [dice.integers(0, EXPERTS, row_count * EXPERTS_PER_TOKEN) for _ in range(LAYERS)]
    tenants = [f"tenant {row % 3}" for row in range(row_count)]

    def count() -> None:
        for _ in range(steps):
            rows = RowTenants.of(tenants)
            for layer, ids in enumerate(asked):
                meter.add(layer, ids, rows)
        meter.routing("trunk")

    return median_ms(count) * 1000 / steps / LAYERS


def main() -> None:
    for row_count in (1, 8, 32):
        print(f"Counting a layer's call of {row_count} rows: {counting_us(row_count):.1f} us.")
    print(
        "| shards | exponent | max/mean, worst layer (bound) | placed anew | unchanged | a step | loads after a loss |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in rows():
        print(
            f"| {row.shards} | {row.exponent} | {row.imbalance:.2f} ({row.bound:.2f}) | {row.anew_ms:.0f} ms | "
            f"{row.unchanged_ms:.1f} ms | {row.step_ms:.0f} ms | {row.loads} for {row.lost} |"
        )


if __name__ == "__main__":
    main()
