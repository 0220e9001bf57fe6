"""Whole sequences of steps, with shards that are slow to load, die and come in between: no copy is given up that is
needed, no shard is overfilled, no more is loaded at once than may be, and there is an end."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from antiphon.experts.moves import MoveRules, ShardState, Step, next_steps
from antiphon.experts.placement import PlacementRules, ShardRoom, place
from antiphon.experts.table import ExpertKey

LAYERS, EXPERTS = 2, 8
KEYS = [(layer, expert) for layer in range(LAYERS) for expert in range(EXPERTS)]
Targets = dict[str, frozenset[ExpertKey]]


@dataclass
class Shard:
    """Loads what it was told to, in an order of its own."""

    capacity: int
    held: set[ExpertKey] = field(default_factory=set)
    assigned: frozenset[ExpertKey] = frozenset()
    settled: set[ExpertKey] = field(default_factory=set)

    def obey(self, step: Step) -> None:
        self.assigned = step.assignment
        self.held -= step.drops
        self.settled -= step.drops

    def work(self, dice: np.random.Generator) -> None:
        self.settled |= {key for key in sorted(self.held) if dice.random() < 0.7}
        for key in sorted(self.assigned - self.held):
            if dice.random() < 0.6:
                self.held.add(key)


@dataclass
class World:
    shards: dict[str, Shard]
    pairs: NDArray[np.float64]
    rules: MoveRules
    dice: np.random.Generator

    def steps(self, target: Targets) -> dict[str, Step]:
        states = [
            ShardState(
                name, shard.capacity, frozenset(shard.held), frozenset(shard.settled), shard.assigned - shard.held
            )
            for name, shard in self.shards.items()
        ]
        return next_steps(states, target, self.pairs, self.rules)

    def copies(self, key: ExpertKey) -> int:
        return sum(key in shard.held for shard in self.shards.values())

    def settled(self, key: ExpertKey) -> int:
        return sum(key in shard.settled for shard in self.shards.values())

    def advance(self, target: Targets) -> bool:
        """One round, checked. Whether anything is still under way."""
        wanted = {key: sum(key in experts for experts in target.values()) for key in KEYS}
        before = {key: self.settled(key) for key in KEYS}
        steps = self.steps(target)
        for name, step in steps.items():
            shard = self.shards[name]
            assert len(step.assignment | shard.held) <= max(shard.capacity, len(shard.held))
            assert len((step.assignment - shard.held) & target[name]) <= self.rules.loads_at_once
            assert step.loads <= target[name] - shard.held
            assert not step.drops & target[name]
            shard.obey(step)
        for key in KEYS:
            least = min(before[key], max(1, min(self.rules.least_copies, wanted[key])))
            assert self.settled(key) >= least, f"{key} fell from {before[key]} to {self.settled(key)}"
        for shard in self.shards.values():
            shard.work(self.dice)
            assert len(shard.held) <= shard.capacity
        return any(shard.held != target[name] for name, shard in self.shards.items() if name in target)


def world(draw: st.DrawFn, tight: float, least: int) -> tuple[World, PlacementRules]:
    dice = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    count = draw(st.integers(2, 5))
    capacity = max(2, int(np.ceil(tight * len(KEYS) / count)))
    shards = {}
    for each in range(count):
        held = {key for key in KEYS if dice.random() < 0.5}
        held = set(sorted(held, key=lambda _: dice.random())[:capacity])
        shards[f"shard{each}"] = Shard(capacity, held, frozenset(held), set(held))
    rules = MoveRules(loads_at_once=draw(st.integers(1, 4)), least_copies=least)
    redundancy = draw(st.sampled_from([None, 0.0, 0.25]))
    return World(shards, dice.random((LAYERS, EXPERTS)) * 1000, rules, dice), PlacementRules(least, redundancy)


def planned(world: World, rules: PlacementRules) -> Targets:
    rooms = [ShardRoom(name, shard.capacity, host=name) for name, shard in world.shards.items()]
    held = {name: frozenset(shard.held) for name, shard in world.shards.items()}
    return place(world.pairs, rooms, rules, held).by_shard()


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from([1.3, 2.0, 3.0]), st.integers(1, 2))
def test_every_target_with_room_is_reached_step_by_step(data: st.DataObject, tight: float, least: int) -> None:
    here, rules = data.draw(st.composite(world)(tight, least))
    target = planned(here, rules)
    rounds = 0
    while here.advance(target):
        rounds += 1
        assert rounds < 400, "no end in sight"
    assert all(here.copies(key) >= 1 for key in KEYS)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from([1.0, 1.3, 2.0]), st.integers(1, 2))
def test_shards_die_and_come_in_between(data: st.DataObject, tight: float, least: int) -> None:
    here, rules = data.draw(st.composite(world)(tight, least))
    target, count = planned(here, rules), len(here.shards)
    for moment in range(40):
        here.advance(target)
        fate = here.dice.random()
        if fate < 0.1 and len(here.shards) > 1:
            del here.shards[str(here.dice.choice(sorted(here.shards)))]
        elif fate < 0.2:
            here.shards[f"later{moment}"] = Shard(len(KEYS) // 2 + count)
        if fate < 0.3:
            target = planned(here, rules)
    here.shards["last"] = Shard(len(KEYS) + 1)
    target, rounds = planned(here, rules), 0
    while here.advance(target) and rounds < 400:
        rounds += 1
    assert all(here.copies(key) >= 1 for key in KEYS)


def state(name: str, held: set[ExpertKey], capacity: int = 8, **known: set[ExpertKey]) -> ShardState:
    settled, asked = known.get("settled", held), known.get("asked", set())
    return ShardState(name, capacity, frozenset(held), frozenset(settled), frozenset(asked))


HEAT = np.arange(16.0).reshape(LAYERS, EXPERTS)


def test_an_expert_moves_by_being_loaded_seen_and_only_then_given_up() -> None:
    target = {"old": frozenset[ExpertKey](), "new": frozenset({(0, 3)})}
    both = {(0, 3)}
    first = next_steps([state("old", both), state("new", set())], target, HEAT, MoveRules())
    assert (first["new"].loads, first["old"].drops) == (both, set())
    unseen = next_steps([state("old", both), state("new", both, settled=set())], target, HEAT, MoveRules())
    assert (unseen["new"].loads, unseen["old"].drops) == (set(), set())
    seen = next_steps([state("old", both), state("new", both)], target, HEAT, MoveRules())
    assert seen["old"].drops == both


def test_what_nobody_holds_is_loaded_first_and_then_the_hottest() -> None:
    target = {"full": frozenset({(0, 7), (1, 6), (1, 7)}), "new": frozenset({(0, 0), (0, 1), (1, 6), (1, 7)})}
    shards = [state("full", {(0, 7), (1, 6), (1, 7)}), state("new", set())]
    step = next_steps(shards, target, HEAT, MoveRules(loads_at_once=3))["new"]
    assert step.loads == {(0, 0), (0, 1), (1, 7)}


def test_a_full_shard_gives_up_what_is_elsewhere_to_load_what_is_missing() -> None:
    target = {"full": frozenset({(0, 0)}), "other": frozenset({(0, 1), (0, 2)})}
    shards = [state("full", {(0, 1), (0, 3)}, capacity=2), state("other", {(0, 1)}, capacity=2)]
    step = next_steps(shards, target, HEAT, MoveRules())["full"]
    assert step.drops == {(0, 1)}
    assert not step.loads


@pytest.mark.parametrize("least", [1, 2])
def test_two_full_shards_do_not_both_give_up_the_same_expert(least: int) -> None:
    target = {name: frozenset({(0, 0), (0, 5)}) for name in ("first", "second")} | {"third": frozenset({(0, 1)})}
    shards = [state(name, {(0, 1)}, capacity=1) for name in ("first", "second")] + [state("third", set())]
    steps = next_steps(shards, target, HEAT, MoveRules(least_copies=least))
    assert sum(len(step.drops) for step in steps.values()) == 1


def test_what_is_being_loaded_is_counted_and_what_is_not_wanted_any_more_is_called_off() -> None:
    target = {"shard": frozenset({(0, each) for each in range(6)})}
    asked = {(0, 0), (0, 1), (1, 1)}
    step = next_steps([state("shard", set(), asked=asked)], target, HEAT, MoveRules(loads_at_once=4))["shard"]
    assert step.loads == {(0, 4), (0, 5)}
    assert step.assignment == {(0, 0), (0, 1), (0, 4), (0, 5)}


def test_shards_outside_the_target_are_left_alone() -> None:
    shards = [state("leaving", {(0, 0)}, settled=set()), state("new", set())]
    steps = next_steps(shards, {"new": frozenset({(0, 0)})}, HEAT, MoveRules())
    assert set(steps) == {"new"}
    assert steps["new"].loads == {(0, 0)}
