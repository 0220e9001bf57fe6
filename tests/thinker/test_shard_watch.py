"""Shards come, go, fall ill and recover; the roster follows, and closes what nobody calls any more."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import torch

from antiphon.errors import Unavailable
from antiphon.experts.fakes import FakeNetwork, FakeShard
from antiphon.experts.table import ExpertModel
from antiphon.telemetry import names
from antiphon.telemetry.metrics import process_metrics
from services.thinker.shard_roster import ShardRoster
from services.thinker.shard_watch import ShardWatch, WatchLimits
from tests.thinker.expert_fleet import Layers, spread

_MODEL = ExpertModel("float32", 2, 8, 3, 16, 8, "print")
_LIMITS = WatchLimits(every_seconds=0.02, answer_seconds=1.0, forget_seconds=0.2)


def fakes(count: int, copies: int = 1) -> list[FakeShard]:
    weights = Layers(_MODEL, torch.float32).weights()
    return [
        FakeShard(f"shard{place}", _MODEL, weights, held) for place, held in enumerate(spread(_MODEL, count, copies))
    ]


@asynccontextmanager
async def watching(
    shards: Sequence[FakeShard], *, probation_seconds: float = 0.05, limits: WatchLimits = _LIMITS
) -> AsyncIterator[tuple[ShardRoster, FakeNetwork]]:
    roster, network = ShardRoster(_MODEL, "here", probation_seconds=probation_seconds), FakeNetwork(shards)
    watch = ShardWatch(roster, network, network.addresses, limits)
    async with asyncio.timeout(20):
        await watch.start()
        try:
            yield roster, network
        finally:
            await watch.close()
    assert all(link.is_closed for link in network.links)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.01)


def called(roster: ShardRoster) -> set[str]:
    return {shard.shard_id for shard in roster.live.shards}


async def test_it_is_ready_once_every_expert_has_a_copy() -> None:
    shards = fakes(2)
    shards[1].mood = "dead"
    roster, network = ShardRoster(_MODEL, "here", probation_seconds=1.0), FakeNetwork(shards)
    watch = ShardWatch(roster, network, network.addresses, _LIMITS)
    starting = asyncio.create_task(watch.start())
    await until(lambda: called(roster) == {"shard0/0"})
    assert not starting.done()

    shards[1].mood = "well"

    async with asyncio.timeout(20):
        await starting
    assert called(roster) == {"shard0/0", "shard1/0"}
    assert process_metrics().registry.get_sample_value(names.METRIC_EXPERT_SHARDS) == 2
    assert process_metrics().registry.get_sample_value(names.METRIC_EXPERTS_MISSING) == 0
    await watch.close()


async def test_what_a_shard_loads_and_gives_up_is_in_the_next_table() -> None:
    shards = fakes(2)
    async with watching(shards) as (roster, network):
        shards[1].held |= shards[0].held
        await until(lambda: all(1 in each for each in roster.live.table.copies(0).holders))

        shards[0].held = set()
        await until(lambda: roster.live.table.copies(0).holders == ((1,),) * _MODEL.experts)

        assert len(network.links) == 4  # two lanes a shard: nothing was linked again


async def test_a_lost_shard_comes_back_after_its_probation() -> None:
    async with watching(fakes(2, 2), probation_seconds=0.3) as (roster, _):
        lost = roster.live.shards[0]
        roster.lose(lost, Unavailable("It broke."))
        assert called(roster) == {"shard1/0"}

        await asyncio.sleep(0.1)
        assert called(roster) == {"shard1/0"}
        await until(lambda: len(called(roster)) == 2)

        assert lost not in roster.live.shards
        assert all(link.is_closed for link in lost.links)


async def test_a_shard_without_which_an_expert_has_no_copy_comes_back_at_once() -> None:
    async with watching(fakes(2), probation_seconds=3600.0) as (roster, _):
        roster.lose(roster.live.shards[0], Unavailable("It broke."))

        await until(lambda: len(called(roster)) == 2)


async def test_a_shard_that_was_started_anew_is_another_one() -> None:
    shards = fakes(2)
    async with watching(shards, probation_seconds=3600.0) as (roster, _):
        shards[0].restart()

        await until(lambda: called(roster) == {"shard0/1", "shard1/0"})


@pytest.mark.parametrize("mood", ["dead", "hanging"])
async def test_a_shard_that_answers_no_more_is_forgotten(mood: str) -> None:
    shards = fakes(2, 2)
    async with watching(shards) as (roster, _):
        shards[0].mood = mood  # type: ignore[assignment]

        await until(lambda: called(roster) == {"shard1/0"})


async def test_a_shard_that_is_on_no_list_any_more_is_called_for_as_long_as_it_answers() -> None:
    shards = fakes(2)
    async with watching(shards) as (roster, network):
        shards[0].is_draining = True
        network.unlisted = {"shard0", "shard1"}
        await asyncio.sleep(3 * _LIMITS.forget_seconds)
        assert called(roster) == {"shard0/0", "shard1/0"}
        assert len(network.links) == 4, "nothing was linked again"

        shards[0].mood = "dead"

        await until(lambda: called(roster) == {"shard1/0"})


async def test_a_shard_on_no_list_is_forgotten_when_it_is_silent_for_long() -> None:
    shards = fakes(2, 2)
    async with watching(shards) as (roster, network):
        network.unlisted = {"shard0"}
        shards[0].mood = "hanging"

        await until(lambda: called(roster) == {"shard1/0"})


async def test_a_shard_that_hangs_is_not_called_again_before_it_answers() -> None:
    shards = fakes(2)
    async with watching(shards) as (roster, _):
        shards[0].mood = "hanging"
        roster.lose(roster.live.shards[0], Unavailable("It did not answer."))
        await asyncio.sleep(0.3)
        assert called(roster) == {"shard1/0"}

        shards[0].recover()

        await until(lambda: len(called(roster)) == 2)


async def test_one_that_dawdles_keeps_no_other_from_the_next_table() -> None:
    shards = fakes(3, 2)
    async with watching(shards) as (roster, _):
        shards[0].dawdles_seconds = 0.6
        shards[1].restart()
        began = time.monotonic()

        await until(lambda: "shard1/1" in called(roster))

        assert time.monotonic() - began < 0.5, "a link of two lanes, once it was asked"


async def test_one_that_dawdles_is_called_all_the_same() -> None:
    shards = fakes(2)
    shards[0].dawdles_seconds = 0.15
    async with watching(shards, limits=replace(_LIMITS, forget_seconds=2.0)) as (roster, network):
        await asyncio.sleep(0.6)

        assert called(roster) == {"shard0/0", "shard1/0"}
        assert len(network.links) == 4, "it was linked once"


async def test_answers_that_come_late_set_off_no_more_questions() -> None:
    shards = fakes(3, 3)
    limits = replace(_LIMITS, every_seconds=0.5, forget_seconds=5.0)
    async with watching(shards, limits=limits) as (_, network):
        for shard, seconds in zip(shards, (0.0, 0.15, 0.22), strict=True):
            shard.dawdles_seconds = seconds
        before = network.questions
        await asyncio.sleep(2.5)
        assert network.questions - before <= 3 * 6


async def test_a_link_that_opens_while_the_watch_ends_is_closed() -> None:
    shards = fakes(2, 2)
    async with watching(shards) as (roster, network):
        shards[0].restart()
        shards[0].dawdles_seconds = 0.15
        await until(lambda: called(roster) == {"shard1/0"})
        await asyncio.sleep(0.2)
    assert all(link.is_closed for link in network.links)


async def test_what_a_lane_calls_is_not_closed_under_it() -> None:
    shards = fakes(2, 2)
    async with watching(shards) as (roster, _):
        taken = roster.take(1)
        lost = taken.shards[0]
        shards[0].mood = "dead"
        roster.lose(lost, Unavailable("It broke."))
        await asyncio.sleep(0.1)
        assert not any(link.is_closed for link in lost.links)

        roster.give_back(1)

        await until(lambda: all(link.is_closed for link in lost.links))


async def test_experts_of_another_model_are_refused_and_it_is_said_why(caplog: pytest.LogCaptureFixture) -> None:
    shards = [*fakes(1), *fakes(1)]
    shards[1].name, shards[1].model = "stranger", replace(_MODEL, fingerprint="another")
    with caplog.at_level(logging.ERROR):
        async with watching(shards) as (roster, _):
            await asyncio.sleep(0.1)
            assert called(roster) == {"shard0/0"}

    assert len(caplog.records) == 1
    assert "experts of another model" in caplog.text


async def test_a_directory_that_does_not_answer_is_asked_again_with_one_complaint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shards = fakes(1)
    roster, network = ShardRoster(_MODEL, "here", probation_seconds=1.0), FakeNetwork(shards)
    asked = 0

    async def addresses() -> Sequence[str]:
        nonlocal asked
        asked += 1
        if asked < 5:
            raise RuntimeError("nobody knows")
        return await network.addresses()

    watch = ShardWatch(roster, network, addresses, _LIMITS)
    with caplog.at_level(logging.ERROR):
        async with asyncio.timeout(20):
            await watch.start()
    await watch.close()

    assert len(caplog.records) == 1
