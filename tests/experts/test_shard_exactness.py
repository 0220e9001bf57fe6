"""Experts in shards give the bits of experts in the trunk: whatever each shard holds, and whichever way rows travel."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import torch
from torch import Tensor

from antiphon.experts.calls import ExpertResult, ShardLink
from antiphon.wire.expert_links.grpc_link import GrpcLink
from antiphon.wire.expert_links.unix_link import UnixLink
from tests.experts.running_shards import ANSWER_SECONDS, LocalLayers, Routed, experts_client, running_shard

# Below and above the number of pairs that are computed one by one.
ROWS = (1, 3, 4, 5, 40)


def summed(routed: Routed, layer: int, links: dict[ShardLink, frozenset[int]], result: ExpertResult) -> Tensor:
    """As a trunk does it: pairs in slot order, or partial sums in float32."""
    rows, top_k = routed.expert_ids.shape
    slots = routed.hidden.new_zeros(rows * top_k, routed.hidden.shape[1])
    sums = torch.zeros(rows, routed.hidden.shape[1])
    for link, experts in links.items():
        call, places = routed.call(layer, experts, result)
        if not len(places):
            continue
        link.send(call, timeout_seconds=ANSWER_SECONDS)
        answer = link.receive()
        if result is ExpertResult.PAIRS:
            slots[places] = answer
        else:
            sums[(places // top_k).unique()] += answer
    return slots.view(rows, top_k, -1).sum(1) if result is ExpertResult.PAIRS else sums.to(routed.hidden.dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shares_memory", [True, False])
@pytest.mark.parametrize("shards", [1, 2, 4, 8])
async def test_shards_give_the_bits_of_local_experts(nano: Path, dtype: str, shares_memory: bool, shards: int) -> None:
    local = LocalLayers.of(nano, getattr(torch, dtype))
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(experts_client())
        links: dict[ShardLink, frozenset[tuple[int, int]]] = {}
        for number in range(1, shards + 1):
            holds = {"holds": f"{number}/{shards}", "dtype": dtype, "shares_memory": shares_memory}
            shard = await stack.enter_async_context(running_shard(nano, **holds))
            told = await client.describe(shard.address, timeout_seconds=ANSWER_SECONDS)
            assert told.model == local.model
            link = await asyncio.to_thread(client.link, told)
            stack.callback(link.close)
            assert isinstance(link, UnixLink if shares_memory else GrpcLink)
            links[link] = told.held
        assert frozenset[tuple[int, int]]().union(*links.values()) == local.model.keys
        for layer, experts in enumerate(local.layers):
            held = {link: frozenset(expert for at, expert in keys if at == layer) for link, keys in links.items()}
            for rows in ROWS:
                routed = Routed.drawn(local.model, rows, seed=layer)
                expected = experts(routed.hidden, routed.expert_ids, routed.weights)
                pairs, sums = [await asyncio.to_thread(summed, routed, layer, held, result) for result in ExpertResult]
                assert torch.equal(pairs, expected)
                tolerance = {"rtol": 1e-6, "atol": 1e-6} if dtype == "float32" else {"rtol": 2**-7, "atol": 1e-3}
                torch.testing.assert_close(sums, expected, **tolerance)
