"""Answers are the reference's wherever the experts are and whatever becomes of them; whoever leaves, leaves nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from antiphon.errors import Unavailable
from antiphon.experts.fakes import FakeShard
from antiphon.model.weights import Checkpoint
from services.thinker.engine import ThinkerEngine
from tests.thinker.expert_engines import fake_shards, sharded
from tests.thinker.questions import ask, gather, give_all, question
from tests.thinker.test_engine import ENDLESS, _never, is_idle


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.01)


async def until_still(count: Callable[[], int]) -> None:
    before = -1
    while before != (before := count()):  # noqa: ASYNC110 - what it waits for tells nobody
        await asyncio.sleep(0.3)


@asynccontextmanager
async def waiting_for_experts(checkpoint, turn) -> AsyncIterator[tuple[ThinkerEngine, asyncio.Task, FakeShard]]:
    """An engine, a request of it that waits in the middle of a step, and the shard that it waits for."""
    shards = fake_shards(checkpoint, 2, 1)
    async with sharded(checkpoint, shards) as engine:

        async def endless() -> None:
            async with aclosing(engine.answer(question(turn, sampling=_never(engine), **ENDLESS))) as answer:
                give_all(engine, turn, answer)
                await gather(answer)

        asking = asyncio.create_task(endless())
        await until(lambda: len(shards[0].calls) > 50)
        shards[0].mood = "dead"
        await until_still(lambda: len(shards[1].calls))
        assert not asking.done()
        yield engine, asking, shards[0]


async def test_cancelling_while_a_step_waits_for_experts_frees_the_pages_at_once(tiny_checkpoint, tiny_turns):
    async with waiting_for_experts(tiny_checkpoint, tiny_turns["text"]) as (engine, asking, shard):
        assert engine.decoder.load().pages_used > 0

        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

        assert is_idle(engine)
        shard.restart()
        assert (await ask(engine, tiny_turns["text"])).ids == tiny_turns["text"].turn.text_ids


async def test_an_engine_can_be_closed_while_a_step_waits_for_experts(tiny_checkpoint, tiny_turns):
    async with waiting_for_experts(tiny_checkpoint, tiny_turns["text"]) as (engine, asking, _):
        async with asyncio.timeout(30):
            await engine.close()
        with pytest.raises(Unavailable):
            await asking


async def test_a_step_goes_on_when_its_experts_come_back(tiny_checkpoint, tiny_turns):
    async with waiting_for_experts(tiny_checkpoint, tiny_turns["text"]) as (engine, asking, shard):
        other = asyncio.create_task(ask(engine, tiny_turns["all"]))
        await asyncio.sleep(0.1)
        assert not other.done()

        shard.restart()

        assert (await other).ids == tiny_turns["all"].turn.text_ids
        asking.cancel()


async def test_a_step_that_waits_in_vain_fails_its_requests_and_keeps_no_page(tiny_checkpoint, tiny_turns):
    shards = fake_shards(tiny_checkpoint, 2, 1)
    async with sharded(tiny_checkpoint, shards, {"wait_seconds": 0.2}) as engine:
        shards[0].mood = "dead"

        with pytest.raises(Unavailable, match="Start a shard"):
            await ask(engine, tiny_turns["text"])

        assert is_idle(engine)


@pytest.mark.parametrize("halved_rows", [None, 2])
@pytest.mark.parametrize("result", ["pairs", "sums"])
async def test_requests_that_join_and_leave_are_answered_as_with_experts_at_hand(
    tiny_checkpoint, tiny_turns, result, halved_rows
):
    shards = fake_shards(tiny_checkpoint, 4, 2)
    remote = {"result": result, "halved_rows": halved_rows}
    async with sharded(tiny_checkpoint, shards, remote, rows_per_step=64, running_requests=8) as engine:
        every = [(turn, 0.003 * index) for index, turn in enumerate([*tiny_turns.values()] * 3)]
        answers = await asyncio.gather(*(ask(engine, turn, after_seconds=after) for turn, after in every))

        for (turn, _), found in zip(every, answers, strict=True):
            assert found.ids == turn.turn.text_ids
    assert all(shard.calls for shard in shards)


async def test_shards_may_die_and_come_back_one_after_the_other(tiny_checkpoint, tiny_turns):
    shards = fake_shards(tiny_checkpoint, 4, 2)

    async def mischief() -> None:
        for shard in shards * 3:
            await asyncio.sleep(0.03)
            shard.mood = "dead"
            await asyncio.sleep(0.03)
            shard.restart()
            await asyncio.sleep(0.12)

    async with sharded(tiny_checkpoint, shards) as engine:
        disturbing = asyncio.create_task(mischief())
        while not disturbing.done():
            turns = list(tiny_turns.values())
            answers = await asyncio.gather(*(ask(engine, turn) for turn in turns))
            assert [found.ids for found in answers] == [turn.turn.text_ids for turn in turns]


async def test_experts_of_a_list_are_computed_by_the_trunk_itself(tiny_checkpoint, tiny_turns):
    shards = fake_shards(tiny_checkpoint, 2, 1)
    async with sharded(tiny_checkpoint, shards, {"local_experts": "0:0,0:1,1:3"}) as engine:
        found = await ask(engine, tiny_turns["all"])

    assert found.ids == tiny_turns["all"].turn.text_ids
    asked = {(call.layer, expert) for shard in shards for call in shard.calls for expert in call.pair_experts.tolist()}
    assert asked
    assert asked.isdisjoint({(0, 0), (0, 1), (1, 3)})


async def test_a_trunk_reads_no_experts_but_what_tells_whose_they_are(tiny_checkpoint, monkeypatch):
    shards = fake_shards(tiny_checkpoint, 1, 1)
    read, load = set(), Checkpoint.load

    def note(checkpoint, names, **options):
        wanted = list(names)
        read.update(wanted)
        return load(checkpoint, wanted, **options)

    monkeypatch.setattr(Checkpoint, "load", note)
    async with sharded(tiny_checkpoint, shards) as engine:
        layers = engine.config.thinker.text.layers

    assert any("self_attn" in name for name in read)
    assert len([name for name in read if ".mlp.experts." in name]) == 3 * layers  # gate, up and down of one expert each
