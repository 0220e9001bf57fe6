"""Every pair of a layer's call goes to one shard that holds its expert, and the shards share the work."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.experts.routing import LEAST_SPLIT_PAIRS, ShardCost, route
from antiphon.experts.table import LayerCopies, ShardLoad
from tests.experts.shards import description

_SHARDS = 4

holders = st.sets(st.integers(0, _SHARDS - 1), max_size=_SHARDS).map(lambda shards: tuple(sorted(shards)))
layers = st.lists(holders, min_size=1, max_size=12)
costs = st.lists(st.builds(ShardCost, st.floats(0, 50), st.floats(1, 8)), min_size=_SHARDS, max_size=_SHARDS)


def asked(draw: st.DrawFn, layer: list[tuple[int, ...]]) -> np.ndarray:
    pairs = draw(st.lists(st.integers(0, len(layer) - 1), max_size=400))
    return np.array(pairs, dtype=np.int64)


@given(st.data(), layers, costs, st.booleans())
def test_every_pair_goes_to_one_holder_of_its_expert_or_its_expert_is_told_as_missing(
    data: st.DataObject, layer: list[tuple[int, ...]], prices: list[ShardCost], may_split: bool
) -> None:
    experts = asked(data.draw, layer)

    routes = route(experts, LayerCopies.of(layer), prices, may_split=may_split)

    placed = Counter(place for places in routes.pairs.values() for place in places.tolist())
    lost = [place for place, expert in enumerate(experts) if expert in routes.missing]
    assert placed + Counter(lost) == Counter(range(len(experts)))
    assert all(not layer[expert] for expert in routes.missing)
    for shard, places in routes.pairs.items():
        assert all(shard in layer[expert] for expert in experts[places])
        assert places.tolist() == sorted(places.tolist())
        assert len(places)


@given(st.data(), layers, costs)
def test_all_pairs_of_an_expert_go_to_one_copy_unless_they_may_be_split(
    data: st.DataObject, layer: list[tuple[int, ...]], prices: list[ShardCost]
) -> None:
    experts = asked(data.draw, layer)

    routes = route(experts, LayerCopies.of(layer), prices)

    takers: dict[int, set[int]] = {}
    for shard, places in routes.pairs.items():
        for expert in experts[places].tolist():
            takers.setdefault(expert, set()).add(shard)
    assert all(len(shards) == 1 for shards in takers.values())


@given(st.data(), st.integers(1, 12))
def test_shards_that_hold_everything_differ_by_no_more_than_the_busiest_expert(
    data: st.DataObject, expert_count: int
) -> None:
    layer = [tuple(range(_SHARDS))] * expert_count
    experts = asked(data.draw, layer)

    routes = route(experts, LayerCopies.of(layer), [ShardCost()] * _SHARDS)

    pairs = [len(routes.pairs.get(shard, ())) for shard in range(_SHARDS)]
    assert max(pairs) - min(pairs) <= max(Counter(experts.tolist()).values(), default=0)


@given(st.integers(2, _SHARDS), st.integers(2 * LEAST_SPLIT_PAIRS, 5000))
def test_a_hot_expert_that_may_be_split_is_shared_by_its_copies(copies: int, pairs: int) -> None:
    routes = route(np.zeros(pairs, np.int64), LayerCopies.of([range(copies)]), [ShardCost()] * copies, may_split=True)

    shares = [len(routes.pairs.get(shard, ())) for shard in range(copies)]
    assert sum(shares) == pairs
    assert max(shares) <= max(pairs / copies + 2, 2 * LEAST_SPLIT_PAIRS)


def test_a_few_pairs_are_not_split() -> None:
    routes = route(np.zeros(LEAST_SPLIT_PAIRS, np.int64), LayerCopies.of([(0, 1)]), [ShardCost()] * 2, may_split=True)

    assert len(routes.pairs) == 1


@pytest.mark.parametrize(("utilisation", "asked_shard"), [(0.0, 0), (0.3, 0), (0.99, 1)])
def test_the_copy_of_the_same_host_is_asked_unless_it_has_clearly_more_to_do(
    utilisation: float, asked_shard: int
) -> None:
    near = description("near", host_id="here", load=ShardLoad(utilisation=utilisation))
    far = description("far", host_id="there")
    prices = [ShardCost.of(each, "here") for each in (near, far)]

    routes = route(np.zeros(8, np.int64), LayerCopies.of([(0, 1)]), prices)

    assert list(routes.pairs) == [asked_shard]


def test_a_shard_that_drains_is_asked_only_for_what_no_other_has() -> None:
    prices = [ShardCost.of(each, "here") for each in (description("going", is_draining=True), description("staying"))]

    routes = route(np.array([0, 0, 1, 2]), LayerCopies.of([(0, 1), (0,), (1,)]), prices)

    assert {shard: places.tolist() for shard, places in routes.pairs.items()} == {0: [2], 1: [0, 1, 3]}
