"""A step in two halves gives what it gives in one, and one half computes while the other waits for experts."""

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from torch import Tensor

from antiphon.errors import Unavailable
from antiphon.experts.calls import ExpertCall
from antiphon.experts.fakes import FakeShard
from services.thinker.halved_steps import _middle
from services.thinker.trunk_turns import TrunkTurns
from tests.thinker.expert_engines import fake_shards, sharded
from tests.thinker.questions import ask
from tests.thinker.test_engine import is_idle

_HALVED = {"halved_rows": 2}


async def test_one_half_is_at_the_experts_while_the_other_is_and_ids_are_the_references(tiny_checkpoint, tiny_turns):
    shards = fake_shards(tiny_checkpoint, 2, 1)
    at_experts: set[int] = set()
    most = 0

    def counted(shard: FakeShard) -> Callable[[ExpertCall, float], Tensor]:
        compute = shard.computed

        def computed(call: ExpertCall, timeout_seconds: float) -> Tensor:
            nonlocal most
            at_experts.add(threading.get_ident())
            most = max(most, len(at_experts))
            result = compute(call, timeout_seconds)
            at_experts.discard(threading.get_ident())
            return result

        return computed

    for shard in shards:
        shard.slow_seconds = 0.001
        shard.computed = counted(shard)  # type: ignore[method-assign]
    turns = [*tiny_turns.values()] * 2
    async with sharded(tiny_checkpoint, shards, _HALVED) as engine:
        answers = await asyncio.gather(*(ask(engine, turn) for turn in turns))

    assert [found.ids for found in answers] == [turn.turn.text_ids for turn in turns]
    assert most == 2


async def test_a_half_that_fails_fails_the_step_once_the_other_has_ended(tiny_checkpoint, tiny_turns):
    shards = fake_shards(tiny_checkpoint, 2, 1)
    async with sharded(tiny_checkpoint, shards, {**_HALVED, "wait_seconds": 2.0}) as engine:
        shards[0].mood = "dead"
        asked = [ask(engine, turn) for turn in [tiny_turns["text"]] * 4]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert is_idle(engine)

        shards[0].restart()
        found = await asyncio.gather(*(ask(engine, turn) for turn in [tiny_turns["text"]] * 4))

    assert all(each.ids == tiny_turns["text"].turn.text_ids for each in found)


def test_the_trunk_is_one_lanes_at_a_time_and_the_others_while_it_is_away() -> None:
    turns, seen = TrunkTurns(), []
    away, done = threading.Event(), threading.Event()

    def second() -> None:
        with turns.of(1):
            seen.append((turns.lane, away.is_set()))
            done.set()

    with turns.of(0):
        other = threading.Thread(target=second)
        other.start()
        assert not done.wait(0.05)
        away.set()
        with turns.away():
            assert done.wait(20)
        assert turns.lane == 0
    other.join()

    assert seen == [(1, True)]


@pytest.mark.parametrize("rows", [[5], [1, 1], [9, 1, 1], [1, 1, 9], [4, 4, 4, 4]])
def test_halves_are_as_even_as_requests_allow(rows: list[int]) -> None:
    slices = [SimpleNamespace(row_count=each) for each in rows]
    middle = _middle(slices)  # type: ignore[arg-type]

    def worst(count: int) -> int:
        return max(sum(rows[:count]), sum(rows[count:]))

    assert middle == 0 if len(rows) == 1 else worst(middle) == min(worst(count) for count in range(1, len(rows)))
