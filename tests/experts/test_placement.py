"""At the real Thinker's size: shards have as much to do as each other, however unevenly experts are asked for, and a
placement changes only where it must."""

import numpy as np
import pytest
from numpy.typing import NDArray

from antiphon.experts.balance import imbalances, least_imbalance, overall_imbalance
from antiphon.experts.placement import Placement, PlacementRules, ShardRoom, place
from antiphon.experts.spreading import confined, domains_of

LAYERS, EXPERTS = 48, 128
REDUNDANT = PlacementRules(redundancy=0.25)
BOUND = 1.2


def zipf(exponent: float, seed: int = 0) -> NDArray[np.float64]:
    """(layers, experts): pairs, in each layer the hottest experts are others."""
    dice = np.random.default_rng(seed)
    law = np.arange(1, EXPERTS + 1) ** -exponent
    return np.stack([dice.permutation(law / law.sum()) for _ in range(LAYERS)]) * 1e6


def shards(count: int, redundancy: float = 0.25) -> list[ShardRoom]:
    """That together hold as many, with room for one more in each."""
    capacity = -(-int(LAYERS * EXPERTS * (1 + redundancy)) // count) + 1
    return [ShardRoom(f"s{each:02}", capacity, f"host{each // 2}", f"zone{each % 3}") for each in range(count)]


def loads(placement: Placement, name: str) -> int:
    return len(placement.experts(name))


def changes(before: Placement, after: Placement) -> int:
    """Experts that have to be loaded."""
    held = before.by_shard()
    return sum(len(experts - held.get(name, frozenset())) for name, experts in after.by_shard().items())


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("count", [4, 8, 16, 32])
def test_a_quarter_more_copies_make_every_layer_even(count: int, exponent: float) -> None:
    pairs, rooms = zipf(exponent), shards(count)
    placement = place(pairs, rooms, REDUNDANT, {})
    assert imbalances(pairs, placement.held).max() <= BOUND
    assert overall_imbalance(pairs, placement.held) <= BOUND
    assert placement.held.sum() == LAYERS * EXPERTS * 1.25
    assert placement.held.sum(axis=(1, 2)).max() < rooms[0].capacity
    assert not placement.missing
    domains = domains_of([each.zone for each in rooms], [each.host for each in rooms])
    assert not confined(placement.held, domains).any()


def test_one_copy_of_each_would_leave_layers_uneven() -> None:
    """What the bound above is worth: without copies no packing holds it."""
    pairs = zipf(1.0)
    placement = place(pairs, shards(16), PlacementRules(redundancy=0.0), {})
    assert imbalances(pairs, placement.held).max() > 2


def test_where_a_copy_of_the_hottest_is_more_than_a_share_the_best_is_reached_that_there_is() -> None:
    """A quarter more are 32 copies a layer: too few to cut the hottest experts down to a 64th."""
    pairs = zipf(2.0)
    placement = place(pairs, shards(64), REDUNDANT, {})
    best = least_imbalance(pairs[0], 64, int(EXPERTS * 1.25))
    assert best > BOUND
    assert imbalances(pairs, placement.held).max() <= 1.05 * best
    more = place(pairs, shards(64, redundancy=0.6), PlacementRules(redundancy=0.6), {})
    assert imbalances(pairs, more.held).max() <= BOUND


@pytest.mark.parametrize("exponent", [0.5, 1.5])
def test_what_is_well_stays(exponent: float) -> None:
    pairs, dice = zipf(exponent), np.random.default_rng(1)
    before = place(pairs, shards(16), REDUNDANT, {})
    for _ in range(3):
        drifted = pairs * dice.uniform(0.95, 1.05, pairs.shape)
        assert changes(before, place(drifted, shards(16), REDUNDANT, before.by_shard())) == 0


def test_only_the_layer_is_changed_that_has_become_uneven() -> None:
    pairs = zipf(1.0)
    before = place(pairs, shards(16), REDUNDANT, {})
    cold = int(pairs[7].argmin())
    pairs[7, cold] = pairs[7].max()
    after = place(pairs, shards(16), REDUNDANT, before.by_shard())
    assert imbalances(pairs, after.held)[7] <= REDUNDANT.keep_below
    moved = {layer for name in before.names for layer, _ in after.experts(name) ^ before.experts(name)}
    assert moved == {7}
    assert changes(before, after) < EXPERTS / 4


def test_a_lost_shard_costs_few_more_loads_than_it_held() -> None:
    pairs, rooms = zipf(0.8), shards(16)
    before = place(pairs, rooms, REDUNDANT, {})
    after = place(pairs, rooms[1:], REDUNDANT, before.by_shard())
    assert not after.missing
    assert changes(before, after) < 1.5 * loads(before, "s00")
    assert imbalances(pairs, after.held).max() <= BOUND


def test_a_new_shard_takes_its_part() -> None:
    pairs, rooms = zipf(0.8), shards(16)
    before = place(pairs, rooms, REDUNDANT, {})
    after = place(pairs, [*rooms, ShardRoom("new", rooms[0].capacity, "host9", "zone0")], REDUNDANT, before.by_shard())
    assert loads(after, "new") > 0.5 * loads(before, "s00")
    assert imbalances(pairs, after.held).max() <= BOUND
    work = np.einsum("le,le->", after.held[list(after.names).index("new")], pairs / after.held.sum(axis=0))
    assert work > 0.7 * pairs.sum() / 17


def test_a_shard_that_is_too_full_is_relieved() -> None:
    pairs, rooms = zipf(0.8), shards(8)
    everything = frozenset((layer, expert) for layer in range(LAYERS) for expert in range(EXPERTS))
    after = place(pairs, rooms, REDUNDANT, {"s00": everything})
    assert max(loads(after, room.name) for room in rooms) <= rooms[0].capacity
    assert not after.missing


def test_without_traffic_copies_are_spread_alike() -> None:
    placement = place(np.zeros((LAYERS, EXPERTS)), shards(8), REDUNDANT, {})
    held = placement.held.sum(axis=(1, 2))
    assert held.max() - held.min() <= 1
    assert placement.held.sum(axis=0).max() == 2


def test_little_traffic_moves_nothing() -> None:
    before = place(np.zeros((LAYERS, EXPERTS)), shards(8), REDUNDANT, {})
    pairs = np.zeros((LAYERS, EXPERTS))
    pairs[:, :8] = 1  # one token
    assert changes(before, place(pairs, shards(8), REDUNDANT, before.by_shard())) == 0
