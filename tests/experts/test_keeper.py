"""A keeper brings experts to where they are asked for and back to their copies after a loss; several do no harm."""

import asyncio
import random

import numpy as np
import pytest

from antiphon.experts.table import ExpertModel
from services.experts.epochs import next_epoch
from services.experts.keeper_config import KeeperSettings
from tests.experts.kept_shards import KEYS, SETTINGS, KeptFleet, asked


def spread(fleet: KeptFleet, count: int, **known: str) -> None:
    for each in range(count):
        fleet.start(f"shard{each}", {key for key in KEYS if sum(key) % count == each}, **known)


async def test_only_the_least_of_those_that_answer_rules() -> None:
    fleet = KeptFleet()
    spread(fleet, 3)
    await fleet.pass_second()
    assert fleet.ruling() == ["shard0"]
    fleet.kill("shard0")
    await fleet.pass_second()
    assert fleet.ruling() == ["shard1"]


async def test_who_does_not_rule_asks_one_that_comes_before_it_and_not_all() -> None:
    fleet = KeptFleet()
    spread(fleet, 9)
    await fleet.pass_seconds(3)
    before = sum(shard.asked for shard in fleet.shards.values())
    await fleet.pass_seconds(10)
    each_second = (sum(shard.asked for shard in fleet.shards.values()) - before) / 10
    assert each_second < 9 * 9 * 0.6, "all by who rules, twice; by each other one, and all now and then"
    fleet.kill("shard0")
    await fleet.pass_second()
    assert fleet.ruling() == ["shard1"]


async def test_addresses_of_shards_that_are_gone_are_forgotten_by_who_does_not_rule() -> None:
    fleet = KeptFleet()
    spread(fleet, 3)
    for each in range(40):
        fleet.start(f"x{each}")
        await fleet.pass_second()
        fleet.kill(f"x{each}")
    await fleet.pass_seconds(10)
    known = [await keeper._desk.addresses() for keeper in fleet.keepers.values()]
    assert [sorted(each) for each in known] == [["shard0", "shard1", "shard2"]] * 3


async def test_shards_of_another_model_neither_rule_nor_are_ruled() -> None:
    fleet = KeptFleet()
    other = fleet.start("a")
    other.model = ExpertModel("bfloat16", 2, 8, 2, 8, 4, "print")
    spread(fleet, 2)
    await fleet.pass_seconds(3)
    assert fleet.ruling() == ["shard0"]
    assert other.epoch == 0


async def test_copies_that_there_is_room_for_are_made_a_few_at_a_time() -> None:
    fleet = KeptFleet()
    spread(fleet, 4)
    await fleet.pass_seconds(20)
    assert fleet.total == 24
    assert all(shard.most_loading <= SETTINGS.loads_at_once for shard in fleet.shards.values())
    assert all(shard.most_held <= shard.capacity for shard in fleet.shards.values())


async def test_hot_experts_get_copies_and_cold_ones_lose_theirs() -> None:
    fleet = KeptFleet()
    spread(fleet, 4)
    await fleet.pass_seconds(20)
    pairs = np.full((2, 8), 100.0, dtype=np.float32)
    pairs[1, 3] = 5000.0
    fleet.shards["shard2"].routings = (asked(pairs),)
    await fleet.pass_seconds(40)
    assert fleet.copies((1, 3)) == 4
    assert fleet.total == 24
    loads = sum(shard.loads for shard in fleet.shards.values())
    await fleet.pass_seconds(40)
    assert sum(shard.loads for shard in fleet.shards.values()) == loads


async def test_little_traffic_changes_nothing() -> None:
    fleet = KeptFleet()
    spread(fleet, 4)
    await fleet.pass_seconds(20)
    loads = sum(shard.loads for shard in fleet.shards.values())
    pairs = np.zeros((2, 8), dtype=np.float32)
    pairs[1, 3] = 20.0
    fleet.shards["shard2"].routings = (asked(pairs),)
    await fleet.pass_seconds(40)
    assert sum(shard.loads for shard in fleet.shards.values()) == loads


@pytest.mark.parametrize("lost", ["shard0", "shard3"])
async def test_after_a_loss_every_expert_has_a_copy_again_and_first_those_that_had_no_other(lost: str) -> None:
    fleet = KeptFleet()
    spread(fleet, 4)
    await fleet.pass_seconds(20)
    fleet.kill(lost)
    gone = len(fleet.lost)
    assert gone > 0
    seconds = 0
    while fleet.lost and seconds < 60:
        await fleet.pass_second()
        seconds += 1
    # One look to learn of it, and a load a second in each of the three that are left.
    assert seconds <= 3 + gone
    await fleet.pass_seconds(30)
    assert fleet.total == 24


async def test_with_two_copies_each_a_loss_leaves_no_expert_without_one() -> None:
    fleet = KeptFleet(KeeperSettings(addresses="", least_copies=2, loads_at_once=4))
    for each in range(4):
        fleet.start(f"shard{each}", {key for key in KEYS if (each - sum(key)) % 4 < 2})
    await fleet.pass_seconds(5)
    for name in ("shard1", "shard0"):
        fleet.kill(name)
        assert not fleet.lost
        await fleet.pass_seconds(15)
        assert min(fleet.copies(key) for key in KEYS) == (2 if name == "shard1" else 1)


async def test_copies_are_in_different_zones() -> None:
    fleet = KeptFleet()
    for each in range(4):
        fleet.start(f"shard{each}", {key for key in KEYS if sum(key) % 4 == each}, zone="ab"[each % 2])
    await fleet.pass_seconds(30)
    for key in KEYS:
        zones = {shard.zone for shard in fleet.shards.values() if key in shard.held}
        assert len(zones) == min(2, fleet.copies(key))


async def test_a_new_shard_takes_its_part_while_nothing_is_missing() -> None:
    fleet = KeptFleet()
    spread(fleet, 2)
    await fleet.pass_seconds(20)
    new = fleet.start("shard9")
    await fleet.pass_seconds(30)
    assert len(new.held) >= 5
    assert min(len(shard.held) for shard in fleet.shards.values()) >= 5


async def test_what_a_leaving_shard_holds_is_elsewhere_before_it_goes() -> None:
    fleet = KeptFleet()
    spread(fleet, 4)
    await fleet.pass_seconds(20)
    fleet.shards["shard0"].is_draining = True
    await fleet.pass_seconds(15)
    assert fleet.ruling() == ["shard1"]
    fleet.kill("shard0")
    assert not fleet.lost


async def test_what_a_shard_holds_that_left_the_list_to_drain_is_elsewhere_before_it_goes() -> None:
    fleet = KeptFleet()
    spread(fleet, 4)
    await fleet.pass_seconds(20)
    fleet.shards["shard3"].is_draining = True
    for desk in fleet.desks.values():
        desk.unlisted = {"shard3"}
    await fleet.pass_seconds(15)
    fleet.kill("shard3")
    assert not fleet.lost


async def test_a_moment_without_a_list_moves_nothing() -> None:
    fleet = KeptFleet()
    spread(fleet, 4)
    await fleet.pass_seconds(20)
    sent = sum(len(desk.sent) for desk in fleet.desks.values())
    for desk in fleet.desks.values():
        desk.unlisted = set(fleet.shards)
    await fleet.pass_seconds(20)
    assert fleet.ruling() == ["shard0"]
    assert sum(len(desk.sent) for desk in fleet.desks.values()) == sent


async def test_two_keepers_that_never_see_each_other_rule_by_turns_and_get_the_copies_made() -> None:
    fleet = KeptFleet()
    for each in range(4):
        hidden = {0: ["shard1"], 1: ["shard0"]}.get(each, [])
        fleet.start(f"shard{each}", {key for key in KEYS if sum(key) % 4 == each}, hidden=hidden)
    turns, seconds = 0, 90
    ruling: list[str] = []
    for _ in range(seconds):
        await fleet.pass_second()
        turns += fleet.ruling() not in ([], ruling)
        ruling = fleet.ruling() or ruling
    assert 2 <= turns <= seconds / 2, "neither rules for ever, and neither is outbid at every look"
    assert fleet.live() == KEYS
    assert min(len(fleet.shards[name].held) for name in ("shard2", "shard3")) > 4


async def test_one_that_is_silent_for_a_moment_is_not_replaced_and_one_that_stays_so_is() -> None:
    fleet = KeptFleet(SETTINGS.model_copy(update={"redundancy": 0.0}))
    spread(fleet, 4)
    await fleet.pass_seconds(15)
    held = set(fleet.shards["shard2"].held)
    fleet.shards["shard2"].is_silent = True
    loads = sum(shard.loads for shard in fleet.shards.values())
    await fleet.pass_seconds(4)
    assert sum(shard.loads for shard in fleet.shards.values()) == loads
    await fleet.pass_seconds(15)
    assert {key for key in held if fleet.copies(key) == 2} == held


async def test_after_a_lost_answer_nothing_is_said_in_the_epoch_in_which_it_was_lost() -> None:
    """The message may still be on its way, and must not be obeyed after a later one."""
    fleet = KeptFleet()
    spread(fleet, 4)
    desk = fleet.desks["shard0"]
    desk.loses_answers_of = {"shard1"}
    await fleet.pass_seconds(6)
    told = [epoch for address, epoch, experts in desk.sent if address == "shard1" and experts is not None]
    assert told
    assert told == sorted(set(told))
    desk.loses_answers_of = set()
    await fleet.pass_seconds(30)
    assert fleet.shards["shard1"].epoch > told[-1]
    assert fleet.total == 24


def test_epochs_grow_and_are_nobody_elses() -> None:
    first, second = next_epoch([], "first"), next_epoch([], "second")
    assert first != second
    assert next_epoch([first, second], "first") > max(first, second)
    known = [0]
    for each in range(1000):
        known.append(next_epoch(known, f"shard{each % 3}"))
    assert known == sorted(set(known))
    assert known[-1] < 1 << 63


@pytest.mark.parametrize("seed", range(12))
async def test_two_keepers_at_once_give_up_nothing_that_is_needed(seed: int) -> None:
    """Each takes the other for lost, sees shards that the other does not, and hears late."""
    dice = random.Random(seed)  # noqa: S311 - guards nothing

    async def travel() -> None:
        for _ in range(dice.randrange(6)):
            await asyncio.sleep(0)

    eager = {"settle_seconds": 0.0, "plan_every_seconds": 1.0, "least_pairs": 0.0, "yield_seconds": 0.0}
    settings = SETTINGS.model_copy(update=eager)
    fleet = KeptFleet(settings)
    for each in range(4):
        others = {0: ["shard1"], 1: ["shard0"]}.get(each, [])
        held = {key for key in KEYS if dice.random() < 0.6 or sum(key) % 4 == each}
        fleet.start(f"shard{each}", held, capacity=dice.randrange(8, 17), hidden=others, travel=travel)
    for _ in range(25):
        pairs = np.array([[dice.random() ** 4 * 1000 for _ in range(8)] for _ in range(2)], dtype=np.float32)
        for shard in fleet.shards.values():
            shard.routings = (asked(pairs),)
        looks = [asyncio.create_task(fleet.keepers[name].look()) for name in ("shard0", "shard1")]
        while not all(look.done() for look in looks):
            await asyncio.sleep(0)
            for shard in fleet.shards.values():
                shard.work(dice.randrange(3))
            fleet.check()
        await asyncio.gather(*looks)
        fleet.work()
    epochs = {name: {epoch for _, epoch, _ in fleet.desks[name].sent} for name in ("shard0", "shard1")}
    assert all(epochs.values())
    assert not epochs["shard0"] & epochs["shard1"]
