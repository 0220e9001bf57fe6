"""Shards in processes of their own are killed and stopped under answers: none fails, and none is another."""

import asyncio
import signal

import pytest

from benchmarks.expert_chaos import Plan, chaos
from benchmarks.expert_shards import shard_fleet
from services.thinker.config import RemoteExpertSettings, ThinkerSettings
from services.thinker.engine import ThinkerEngine
from services.thinker.shard_places import shard_places
from tests.model.recorded_prefill import record
from tests.thinker.questions import CONVERSATIONS, ask

pytestmark = pytest.mark.slow


async def test_no_answer_fails_or_changes_while_shards_are_killed() -> None:
    plan = Plan(answers=400, at_once=100, least_seconds=0.05, most_seconds=0.4, down_seconds=0.2, rounds=1, tries=1)
    async with chaos(plan) as subject:
        await subject.measure()
        await subject.disturb()
    print(subject.tally.report())  # noqa: T201 - the measure of it
    assert subject.tally.answers == 400 + 400
    assert not subject.tally.failed
    assert not subject.tally.different
    assert subject.tally.kills


@pytest.mark.parametrize("shares_memory", [True, False], ids=["memory", "grpc"])
async def test_a_shard_that_is_stopped_costs_a_retry_and_comes_back(nano, nano_reference, shares_memory) -> None:
    turns = [record(nano_reference, messages, max_frames=2) for messages in CONVERSATIONS.values()]
    with shard_fleet(nano, 2, copies=2, shares_memory=shares_memory) as fleet:
        await fleet.ready()
        chosen = RemoteExpertSettings(
            addresses=",".join(fleet.addresses), probation_seconds=0.1, look_every_seconds=0.1, traced_steps=0
        )
        settings = ThinkerSettings(checkpoint=nano, experts="remote", remote_experts=chosen)
        engine = ThinkerEngine(settings, shard_places(settings))
        await engine.start()
        assert [(await ask(engine, turn)).ids for turn in turns] == [turn.turn.text_ids for turn in turns]

        asking = [asyncio.create_task(ask(engine, turn)) for turn in turns * 3]
        await asyncio.sleep(0.05)
        fleet.shards[0].send(signal.SIGSTOP)
        found = await asyncio.gather(*asking)
        fleet.shards[0].send(signal.SIGCONT)

        assert [each.ids for each in found] == [turn.turn.text_ids for turn in turns * 3]
        async with asyncio.timeout(60):
            while len(engine.shards) < 2:  # noqa: ASYNC110 - what it waits for tells nobody
                await asyncio.sleep(0.05)
        assert (await ask(engine, turns[0])).ids == turns[0].turn.text_ids
        await engine.close()
