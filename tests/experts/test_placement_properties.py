"""What must hold of every placement, whatever is asked for, whoever is there and wherever experts were before."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from antiphon.experts.balance import imbalances
from antiphon.experts.copy_counts import copy_counts
from antiphon.experts.placement import Placement, PlacementRules, ShardRoom, place
from antiphon.experts.spreading import domains_of
from antiphon.experts.table import ExpertKey


@dataclass
class Case:
    pairs: NDArray[np.float64]
    rooms: list[ShardRoom]
    rules: PlacementRules
    current: dict[str, frozenset[ExpertKey]]

    @property
    def experts(self) -> int:
        return self.pairs.size

    @property
    def room(self) -> int:
        return sum(min(room.capacity, self.experts) for room in self.rooms)

    def place(self) -> Placement:
        return place(self.pairs, self.rooms, self.rules, self.current)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    layers, experts = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    seed = draw(st.integers(0, 1 << 16))
    dice = np.random.default_rng(seed)
    exponent = draw(st.sampled_from([0.0, 0.7, 1.3, 3.0]))
    pairs = np.stack([dice.permutation(np.arange(1, experts + 1) ** -exponent) for _ in range(layers)]) * 1000
    count = draw(st.integers(1, 7))
    tight = draw(st.sampled_from([0.6, 1.0, 1.3, 2.0, 10.0]))
    capacity = max(1, int(tight * layers * experts / count))
    uneven = draw(st.booleans())
    rooms = [
        ShardRoom(
            f"shard{each}",
            int(dice.integers(1, 2 * capacity + 1)) if uneven else capacity,
            host=f"host{dice.integers(3)}",
            zone=draw(st.sampled_from(["", "a", "b"])) if draw(st.booleans()) else "",
        )
        for each in range(count)
    ]
    rules = PlacementRules(
        least_copies=draw(st.integers(1, 3)),
        redundancy=draw(st.sampled_from([None, 0.0, 0.25, 1.0])),
        spare_experts=draw(st.integers(0, 2)),
    )
    keys = [(layer, expert) for layer in range(layers) for expert in range(experts)]
    density = draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    current = {
        f"shard{each}": frozenset(key for key in keys if dice.random() < density)
        for each in range(draw(st.integers(0, 8)))
    }
    return Case(pairs, rooms, rules, current)


@settings(max_examples=80, deadline=None)
@given(cases())
def test_every_expert_has_a_copy_if_there_is_room(case: Case) -> None:
    placement = case.place()
    assert len(placement.missing) == max(0, case.experts - case.room)


@settings(max_examples=80, deadline=None)
@given(cases())
def test_no_shard_holds_more_than_fits_and_no_more_copies_are_made_than_allowed(case: Case) -> None:
    held = case.place().by_shard()
    for room in case.rooms:
        assert len(held[room.name]) <= room.capacity
    rules = case.rules
    if rules.redundancy is not None:
        most = np.ceil(case.experts * max(rules.least_copies, 1 + rules.redundancy))
        assert sum(len(experts) for experts in held.values()) <= most


@settings(max_examples=80, deadline=None)
@given(cases())
def test_copies_are_lost_together_only_where_every_other_place_is_needed(case: Case) -> None:
    placement = case.place()
    held, rooms = placement.held, sorted(case.rooms, key=lambda room: room.name)
    domains = domains_of([room.zone for room in rooms], [room.host for room in rooms])
    inside = np.stack([held[domains == each].sum(axis=0) for each in range(domains.max() + 1)])
    copies = held.sum(axis=0)
    for layer, expert in np.argwhere((copies > 1) & (inside.max(axis=0) == copies) & (domains.max() > 0)):
        home = domains[held[:, layer, expert]][0]
        for shard in np.flatnonzero(domains != home):
            spare = case.rules.spare_experts if case.room > case.experts else 0
            assert held[shard].sum() >= min(rooms[shard].capacity, case.experts) - spare
            for key in zip(*np.nonzero(held[shard]), strict=True):
                elsewhere = copies[key] - inside[(home, *key)]
                others = held[:, layer, expert] & ~held[(slice(None), *key)]
                assert copies[key] > 1
                assert elsewhere == 1 or not others.any()


@settings(max_examples=50, deadline=None)
@given(cases())
def test_the_same_is_placed_again_whatever_the_order(case: Case) -> None:
    first = case.place()
    case.rooms.reverse()
    case.current = dict(reversed(case.current.items()))
    assert case.place().by_shard() == first.by_shard()


@settings(max_examples=50, deadline=None)
@given(cases())
def test_what_is_even_and_whole_is_not_touched(case: Case) -> None:
    placement = case.place()
    even = imbalances(case.pairs + case.rules.prior_pairs, placement.held).max() <= case.rules.keep_below
    case.current = placement.by_shard()
    again = case.place()
    if even and not placement.missing and placement.held.sum(axis=0).min() >= case.rules.least_copies:
        shares = placement.held.sum(axis=(1, 2))
        if shares.min() >= 0.6 * shares.max():
            assert again.by_shard() == placement.by_shard()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.integers(1, 3), st.integers(1, 6), st.integers(0, 40))
def test_copies_go_one_after_the_other_to_whose_copies_have_most_to_do(
    asked: list[float], least: int, most: int, extra: int
) -> None:
    weights = np.array([asked])
    total = min(least, most) * len(asked) + extra
    counts = copy_counts(weights, np.zeros_like(weights, dtype=np.int64), least=least, most=most, total=total)[0]
    by_hand = [min(least, most)] * len(asked)
    for _ in range(extra):
        growing = [each for each in range(len(asked)) if by_hand[each] < most]
        if growing:
            by_hand[max(growing, key=lambda each: asked[each] / by_hand[each])] += 1
    assert counts.sum() == sum(by_hand)
    hottest = max(weight / count for weight, count in zip(asked, counts, strict=True))
    assert hottest <= max(weight / count for weight, count in zip(asked, by_hand, strict=True)) * (1 + 1e-9)
