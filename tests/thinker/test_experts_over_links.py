"""Answers with experts on real shards are those with experts at hand, over shared memory and over gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from services.thinker.config import RemoteExpertSettings, ThinkerSettings
from services.thinker.engine import ThinkerEngine
from services.thinker.remote_experts import RemoteExperts
from services.thinker.shard_places import shard_places
from tests.experts.running_shards import LocalLayers, RunningShard, running_shard
from tests.thinker.expert_engines import QUICK
from tests.thinker.questions import ask, media_places, running

_FLEETS = [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2)]


@asynccontextmanager
async def trunk_and_shards(
    checkpoint: Path, count: int, copies: int, *, shares_memory: bool = True, dtype: str = "float32", **remote: Any
) -> AsyncIterator[tuple[ThinkerEngine, list[RunningShard]]]:
    async with AsyncExitStack() as stack:
        shards = [
            await stack.enter_async_context(
                running_shard(
                    checkpoint, holds=f"{number}/{count}", copies=copies, shares_memory=shares_memory, dtype=dtype
                )
            )
            for number in range(1, count + 1)
        ]
        chosen = RemoteExpertSettings(**{**QUICK, **remote, "addresses": ",".join(each.address for each in shards)})
        settings = ThinkerSettings(checkpoint=checkpoint, dtype=dtype, experts="remote", remote_experts=chosen)
        engine = ThinkerEngine(settings, shard_places(settings))
        await engine.start()
        stack.push_async_callback(engine.close)
        yield engine, shards


@pytest.fixture
def is_bit_equal(monkeypatch: pytest.MonkeyPatch) -> Callable[[LocalLayers], list[bool]]:
    """Of each layer of each step from then on whether it was what experts at hand make of the same rows."""

    def compare(local: LocalLayers) -> list[bool]:
        found: list[bool] = []

        def call(experts: RemoteExperts, hidden: Tensor, expert_ids: Tensor, weights: Tensor) -> Tensor:
            computed = remote(experts, hidden, expert_ids, weights)
            found.append(torch.equal(computed, local.layers[experts.layer](hidden, expert_ids, weights)))
            return computed

        remote = RemoteExperts.__call__
        monkeypatch.setattr(RemoteExperts, "__call__", call)
        return found

    return compare


@pytest.mark.parametrize("shares_memory", [True, False], ids=["memory", "grpc"])
@pytest.mark.parametrize(
    ("name", "shards", "copies"),
    [*(("tiny", *each) for each in _FLEETS), *(("nano", *each) for each in ((1, 1), (4, 2), (8, 1)))],
)
async def test_ids_are_the_references_and_every_layer_is_bit_equal(
    name, request, tiny_checkpoint, nano, shards, copies, shares_memory, is_bit_equal
):
    turns = request.getfixturevalue(f"{name}_turns").values()
    checkpoint = tiny_checkpoint if name == "tiny" else nano
    equal = is_bit_equal(LocalLayers.of(checkpoint, torch.float32))
    async with trunk_and_shards(checkpoint, shards, copies, shares_memory=shares_memory) as (engine, running_shards):
        alone = [await ask(engine, turn) for turn in turns]
        together = await asyncio.gather(*(ask(engine, turn) for turn in turns))

        assert all(shard.engine.load().pairs > 0 for shard in running_shards)
    for turn, each, beside in zip(turns, alone, together, strict=True):
        assert each.ids == beside.ids == turn.turn.text_ids
        if each.hidden:
            accepted = turn.accepted[media_places(engine, turn)]
            torch.testing.assert_close(each.hidden_rows, accepted, rtol=1e-5, atol=2e-5)
    assert equal
    assert all(equal)


@pytest.mark.parametrize("shares_memory", [True, False], ids=["memory", "grpc"])
async def test_in_bfloat16_every_layer_is_bit_equal_and_so_are_ids(
    tiny_checkpoint, tiny_turns, shares_memory, is_bit_equal
):
    async with running(tiny_checkpoint, dtype="bfloat16") as local:
        expected = await ask(local, tiny_turns["text"])
    equal = is_bit_equal(LocalLayers.of(tiny_checkpoint, torch.bfloat16))
    options = {"shares_memory": shares_memory, "dtype": "bfloat16"}
    async with trunk_and_shards(tiny_checkpoint, 4, 2, **options) as (engine, _):
        found = await ask(engine, tiny_turns["text"])
        for turn in tiny_turns.values():  # whose steps depend on when their media come, and so does their rounding
            await ask(engine, turn)

    assert found.ids == expected.ids
    assert equal
    assert all(equal)


@pytest.mark.parametrize("remote", [{"result": "sums"}, {"halved_rows": 2}, {"local_experts": "0:0,1:2"}], ids=str)
async def test_ids_are_the_same_in_every_way_of_calling(nano, nano_turns, remote):
    async with trunk_and_shards(nano, 4, 2, **remote) as (engine, _):
        found = await asyncio.gather(*(ask(engine, turn) for turn in nano_turns.values()))

    assert [each.ids for each in found] == [turn.turn.text_ids for turn in nano_turns.values()]
