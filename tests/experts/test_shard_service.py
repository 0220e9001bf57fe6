"""A shard over gRPC: it tells what it is, takes assignments and reports, and goes without leaving anybody waiting."""

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch

from antiphon.errors import AntiphonError, AtCapacity, Conflict, DeadlineExceeded, InvalidInput, TooLarge, Unavailable
from antiphon.experts.calls import ExpertCall, ExpertResult, ShardLink
from antiphon.experts.table import ShardDescription, TrunkRouting
from antiphon.telemetry.metrics import process_metrics
from antiphon.v1.expert_service_pb2 import ComputeRequest, ExpertRows, ReportRequest, TenantRouting
from antiphon.v1.expert_service_pb2 import TrunkRouting as RoutingMessage
from antiphon.wire import arrays, errors
from antiphon.wire.channels import Channels
from antiphon.wire.expert_links import methods
from antiphon.wire.expert_links.client import ExpertsClient
from antiphon.wire.expert_links.grpc_link import GrpcLink
from antiphon.wire.expert_links.host import this_host
from antiphon.wire.expert_links.unix_link import UnixLink
from services.experts.keeper_config import KeeperSettings
from tests.experts.running_shards import (
    ANSWER_SECONDS,
    LocalLayers,
    Routed,
    RunningShard,
    experts_client,
    running_shard,
)
from tests.hosting.processes import running


@pytest.fixture(scope="module")
def local(nano: Path) -> LocalLayers:
    return LocalLayers.of(nano, torch.float32)


@pytest.fixture
async def client() -> AsyncIterator[ExpertsClient]:
    async with experts_client() as made:
        yield made


@pytest.fixture
async def shard(nano: Path) -> AsyncIterator[RunningShard]:
    async with running_shard(nano, dtype="float32", zone="rack 7") as running:
        yield running


async def described(client: ExpertsClient, shard: RunningShard, **options: bool) -> ShardDescription:
    return await client.describe(shard.address, timeout_seconds=ANSWER_SECONDS, **options)


def asks(link: ShardLink, call: ExpertCall, timeout_seconds: float = ANSWER_SECONDS) -> torch.Tensor:
    link.send(call, timeout_seconds=timeout_seconds)
    return link.receive()


def whole_call(local: LocalLayers, rows: int = 5) -> ExpertCall:
    return Routed.drawn(local.model, rows).call(1, frozenset(range(8)), ExpertResult.PAIRS)[0]


async def test_it_tells_what_it_is_and_holds(client: ExpertsClient, shard: RunningShard, local: LocalLayers) -> None:
    told = await described(client, shard)
    assert (told.address, told.host_id, told.zone) == (shard.address, this_host(), "rack 7")
    assert told.model == local.model
    assert told.held == local.model.keys
    assert (told.epoch, told.loading_count, told.capacity) == (0, 0, 32)
    assert not told.is_draining
    assert told.load.calls == told.load.utilisation == 0
    with contextlib.closing(client.link(told)) as link:
        for _ in range(20):
            await asyncio.to_thread(asks, link, whole_call(local))
        load = (await described(client, shard)).load
    assert (load.calls, load.pairs, load.trunks) == (20, 200, 1)
    assert 0 < load.utilisation <= 1
    assert load.computed_p50_microseconds > 0
    scraped = process_metrics().exposition().decode()
    for line in ("shard_held 32.0", "shard_calls_total 20.0", "shard_pairs_total 200.0", "shard_links"):
        assert f"\nantiphon_expert_{line}" in scraped


async def test_it_holds_what_it_is_assigned(client: ExpertsClient, shard: RunningShard) -> None:
    wanted = frozenset({(0, 1), (3, 7)})
    await client.assign(shard.address, 5, wanted, timeout_seconds=ANSWER_SECONDS)
    await holds(client, shard, wanted)
    assert (await described(client, shard)).epoch == 5
    with pytest.raises(Conflict, match="expected 5 or more"):
        await client.assign(shard.address, 4, frozenset(), timeout_seconds=ANSWER_SECONDS)
    await client.assign(shard.address, 9, None, timeout_seconds=ANSWER_SECONDS)
    told = await described(client, shard)
    assert (told.epoch, told.held) == (9, wanted)
    for unknown in ((4, 0), (0, 8), (-1, 0)):
        with pytest.raises(InvalidInput, match="expected 8 experts of 4 layers"):
            await client.assign(shard.address, 9, frozenset({unknown}), timeout_seconds=ANSWER_SECONDS)


async def holds(client: ExpertsClient, shard: RunningShard, wanted: frozenset[tuple[int, int]]) -> None:
    over = time.monotonic() + ANSWER_SECONDS
    while (await described(client, shard)).held != wanted:
        assert time.monotonic() < over
        await asyncio.sleep(0.01)


async def becomes(condition: Callable[[], bool]) -> None:
    over = time.monotonic() + ANSWER_SECONDS
    while not condition():
        assert time.monotonic() < over, sorted(thread.name for thread in threading.enumerate())
        gc.collect()
        await asyncio.sleep(0.01)


async def test_experts_come_and_go_under_calls(client: ExpertsClient, nano: Path, local: LocalLayers) -> None:
    """Every call is answered rightly, or told that an expert has gone; and at the end all are there again."""
    async with running_shard(nano, dtype="float32", linger_seconds=0.0) as shard:
        outcomes = await _reassigned_under_calls(client, shard, local)
    assert outcomes == {True, False}


async def test_whoever_calls_by_an_old_table_is_answered_for_a_while(
    client: ExpertsClient, shard: RunningShard, local: LocalLayers
) -> None:
    assert await _reassigned_under_calls(client, shard, local) == {True}


async def _reassigned_under_calls(client: ExpertsClient, shard: RunningShard, local: LocalLayers) -> set[bool]:
    """Whether calls were answered while experts were given and taken."""
    over, outcomes = threading.Event(), list[bool]()
    routed = Routed.drawn(local.model, 20)
    expected = local.layers[1](routed.hidden, routed.expert_ids, routed.weights)

    def ask(link: ShardLink) -> None:
        call, _ = routed.call(1, frozenset(range(8)), ExpertResult.PAIRS)
        while not over.is_set():
            try:
                slots = asks(link, call).view(*routed.expert_ids.shape, -1)
            except Conflict:
                outcomes.append(False)
            else:
                assert torch.equal(slots.sum(1), expected)
                outcomes.append(True)

    told = await described(client, shard)
    links = [client.link(told) for _ in range(3)]
    asking = [asyncio.create_task(asyncio.to_thread(ask, link)) for link in links]
    keys = local.model.keys
    for epoch in range(1, 11):
        kept = frozenset(key for key in keys if (key[1] + epoch) % 3) if epoch % 2 else keys
        await client.assign(shard.address, epoch, kept, timeout_seconds=ANSWER_SECONDS)
        await holds(client, shard, kept)
    over.set()
    await asyncio.gather(*asking)
    for link in links:
        assert len(await asyncio.to_thread(asks, link, whole_call(local))) == 10
        link.close()
    return set(outcomes)


async def test_it_hands_on_what_trunks_report(client: ExpertsClient, nano: Path) -> None:
    async with running_shard(nano, dtype="float32", reports=2) as shard:
        for trunk, pairs in (("first", 1.0), ("second", 2.0), ("third", 3.0), ("second", 4.0)):
            routing = TrunkRouting(trunk, 30.0, np.full((4, 8), pairs, np.float32), {"tenant": 9.0})
            await client.report(shard.address, routing, timeout_seconds=ANSWER_SECONDS)
        assert not (await described(client, shard)).routings
        told = (await described(client, shard, with_loads=True)).routings
        assert {(each.trunk_id, float(each.pairs[0, 0])) for each in told} == {("third", 3.0), ("second", 4.0)}
        assert dict(told[0].tenants) == {"tenant": 9.0}


async def test_reports_are_forgotten(client: ExpertsClient, nano: Path) -> None:
    async with running_shard(nano, dtype="float32", report_seconds=0.001) as shard:
        routing = TrunkRouting("gone", 30.0, np.ones((4, 8), np.float32))
        await client.report(shard.address, routing, timeout_seconds=ANSWER_SECONDS)
        await asyncio.sleep(0.01)
        assert not (await described(client, shard, with_loads=True)).routings


def routing_with(**changes: object) -> RoutingMessage:
    fields = {"trunk_id": "me", "half_life_seconds": 30.0, "pairs": arrays.pack(np.ones((4, 8), np.float32))}
    return RoutingMessage(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "routing",
    [
        RoutingMessage(),
        routing_with(trunk_id="x" * 300),
        routing_with(pairs=arrays.pack(np.ones((4, 9), np.float32))),
        routing_with(pairs=arrays.pack(np.full((4, 8), np.nan, np.float32))),
        routing_with(pairs=arrays.pack(np.full((4, 8), -1, np.float32))),
        routing_with(tenants=[TenantRouting(tenant=str(number)) for number in range(2000)]),
    ],
)
async def test_a_malformed_report_is_refused(
    client: ExpertsClient, shard: RunningShard, routing: RoutingMessage
) -> None:
    with pytest.raises(InvalidInput, match="routing"):
        await client._ask(methods.REPORT, shard.address, ReportRequest(routing=routing), ANSWER_SECONDS)
    assert not (await described(client, shard, with_loads=True)).routings


async def test_trunks_of_other_hosts_call_over_grpc(shard: RunningShard, local: LocalLayers) -> None:
    async with experts_client(host_id="elsewhere") as client:
        told = await described(client, shard)
        link = await asyncio.to_thread(client.link, told)
        assert isinstance(link, GrpcLink)
        assert len(await asyncio.to_thread(asks, link, whole_call(local, rows=100))) == 200
        assert link.timings.computed_microseconds > 0
        link.close()


async def test_a_socket_that_is_not_there_after_all_gives_way_to_grpc(
    client: ExpertsClient, nano: Path, local: LocalLayers
) -> None:
    async with running_shard(nano, dtype="float32") as shard:
        told = await described(client, shard)
        os.unlink(told.socket_path)
        link = await asyncio.to_thread(client.link, told)
        assert isinstance(link, GrpcLink)
        assert len(await asyncio.to_thread(asks, link, whole_call(local))) == 10
        link.close()


@pytest.mark.parametrize("host_id", ["", "elsewhere"])
async def test_a_shard_without_a_place_for_a_link_says_so_before_a_call(
    nano: Path, local: LocalLayers, host_id: str
) -> None:
    async with experts_client(host_id=host_id) as client, running_shard(nano, dtype="float32", links=1) as shard:
        told = await described(client, shard)
        link = await asyncio.to_thread(client.link, told)
        with pytest.raises((AtCapacity, Unavailable)):
            await asyncio.to_thread(client.link, told)
        assert (await described(client, shard)).load.trunks == 1
        assert len(await asyncio.to_thread(asks, link, whole_call(local))) == 10
        link.close()
        await becomes(lambda: shard.engine.load().trunks == 0)
        link = await asyncio.to_thread(client.link, told)
        assert isinstance(link, GrpcLink if host_id else UnixLink)
        assert len(await asyncio.to_thread(asks, link, whole_call(local))) == 10
        link.close()


async def test_no_way_around_by_grpc_where_all_links_are_taken(
    client: ExpertsClient, nano: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_shard(nano, dtype="float32", links=1) as shard:
        told = await described(client, shard)
        asked = []
        monkeypatch.setattr("antiphon.wire.expert_links.client.open_grpc_link", lambda *args: asked.append(args))
        first = await asyncio.to_thread(client.link, told)
        with pytest.raises(AtCapacity, match="All 1 links"):
            await asyncio.to_thread(client.link, told)
        first.close()
        assert not asked


async def test_a_link_over_grpc_ends_with_its_time(shard: RunningShard, local: LocalLayers) -> None:
    async with experts_client(host_id="elsewhere") as client:
        link = await asyncio.to_thread(client.link, await described(client, shard))
        with shard.engine.turn(time.monotonic() + ANSWER_SECONDS), pytest.raises(DeadlineExceeded):
            await asyncio.to_thread(asks, link, whole_call(local), 0.05)
        with pytest.raises(Unavailable, match="is closed"):
            link.send(whole_call(local), timeout_seconds=1)


@pytest.mark.parametrize("host_id", ["", "elsewhere"])
async def test_a_computation_that_fails_costs_its_call_only(
    shard: RunningShard, local: LocalLayers, host_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    async with experts_client(host_id=host_id) as client:
        told = await described(client, shard)
        link = await asyncio.to_thread(client.link, told)
        with monkeypatch.context() as broken:
            broken.setattr("services.experts.held_layer.weighted_pairs", fail)
            with pytest.raises(Unavailable, match="failed by a defect"):
                await asyncio.to_thread(asks, link, whole_call(local))
        link = await asyncio.to_thread(client.link, told)
        assert len(await asyncio.to_thread(asks, link, whole_call(local))) == 10
        link.close()


INLINE: dict[str, tuple[dict[str, object], type[AntiphonError], str]] = {
    "a layer beyond the model": ({"layer": 4}, InvalidInput, "layer: expected 0 to 3"),
    "more rows than came": ({"row_count": 2}, InvalidInput, "inline.hidden"),
    "fewer pairs than came": ({"pair_count": 1}, InvalidInput, "inline.pair_rows"),
    "too many rows": ({"row_count": 10**6}, TooLarge, "row_count"),
    "another sequence": ({"sequence": 7}, InvalidInput, "sequence: expected 1"),
    "an expert beyond the layer": (
        {"pair_experts": arrays.pack(np.array([0, 8], np.int32))},
        InvalidInput,
        "pair_experts",
    ),
    "a row that did not come": ({"pair_rows": arrays.pack(np.array([0, 1], np.int32))}, InvalidInput, "pair_rows"),
    "a negative row": ({"pair_rows": arrays.pack(np.array([0, -1], np.int32))}, InvalidInput, "pair_rows"),
    "rows of another width": ({"hidden": arrays.pack(np.ones((1, 255), np.float32))}, InvalidInput, "inline.hidden"),
    "rows of another type": (
        {"hidden": arrays.pack(np.ones((1, 256), np.float32), arrays.BFLOAT16)},
        InvalidInput,
        "Expected rows of float32",
    ),
}


@pytest.mark.parametrize("name", INLINE)
async def test_a_malformed_call_over_grpc_is_refused(shard: RunningShard, name: str) -> None:
    changes, kind, sentence = INLINE[name]
    tensors = {
        "hidden": arrays.pack(np.ones((1, 256), np.float32)),
        "pair_rows": arrays.pack(np.zeros(2, np.int32)),
        "pair_experts": arrays.pack(np.array([1, 2], np.int32)),
        "weights": arrays.pack(np.ones(2, np.float32)),
    }
    fields = {"sequence": 1, "layer": 0, "timeout_microseconds": 10**7, "step_pairs": 2, "result": 1}
    fields |= {"row_count": 1, "pair_count": 2}
    rows = ExpertRows(**{key: changes.get(key, value) for key, value in tensors.items()})  # type: ignore[arg-type]
    request = ComputeRequest(inline=rows, **{key: changes.get(key, value) for key, value in fields.items()})  # type: ignore[arg-type]
    channels = Channels()
    compute = methods.COMPUTE
    with channels.to(shard.address) as channel:
        call = channel.stream_stream(compute.path, compute.encode_request, compute.decode_response)(iter([request]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in call:
                pass
    error = errors.from_rpc_error(refused.value, called="experts")
    assert isinstance(error, kind)
    assert sentence in error.message
    await channels.close()


@pytest.mark.parametrize("host_id", ["", "elsewhere"])
async def test_a_shard_that_drains_serves_on_and_then_goes(nano: Path, local: LocalLayers, host_id: str) -> None:
    """A trunk that goes on calling is answered until the grace is over; one that waits is told, not left waiting."""
    async with (
        experts_client(host_id=host_id) as client,
        running_shard(nano, dtype="float32", idle_seconds=0.2) as shard,
    ):
        told = await described(client, shard)
        busy, idle = [await asyncio.to_thread(client.link, told) for _ in range(2)]
        assert isinstance(busy, GrpcLink if host_id else UnixLink)
        await asyncio.to_thread(asks, idle, whole_call(local))
        draining = asyncio.create_task(shard.server.drain(30.0))
        for _ in range(20):
            await asyncio.to_thread(asks, busy, whole_call(local))
            await asyncio.sleep(0.02)
        assert (await described(client, shard)).is_draining
        with pytest.raises(Unavailable, match="stopping"):
            await client.assign(shard.address, 1, frozenset(), timeout_seconds=ANSWER_SECONDS)
        await asyncio.wait_for(draining, ANSWER_SECONDS / 2)
        for link in (busy, idle):
            with pytest.raises(Unavailable):
                await asyncio.to_thread(asks, link, whole_call(local))
            link.close()


async def test_a_shard_goes_once_others_hold_what_it_holds(
    client: ExpertsClient, nano: Path, local: LocalLayers
) -> None:
    keeper = KeeperSettings(look_every_seconds=0.5, settle_seconds=0.1)
    options = {"dtype": "float32", "idle_seconds": 0.01, "keeper": keeper}
    known: list[str] = []
    async with (
        running_shard(nano, known=known, holds="1/2", **options) as leaving,
        running_shard(nano, known=known, holds="2/2", **options) as staying,
    ):
        began = time.monotonic()
        await leaving.server.drain(ANSWER_SECONDS)
        assert time.monotonic() - began < ANSWER_SECONDS, "it went by itself, not because the grace was over"
        assert (await described(client, staying)).held == local.model.keys
        began = time.monotonic()
        await staying.server.drain(ANSWER_SECONDS)
        assert time.monotonic() - began < ANSWER_SECONDS / 3, "nobody is left who could take over"


@pytest.mark.parametrize("host_id", ["", "elsewhere"])
async def test_links_over_either_way_leave_nothing(shard: RunningShard, local: LocalLayers, host_id: str) -> None:
    async with experts_client(host_id=host_id) as client:
        told = await described(client, shard)

        async def used() -> None:
            link = await asyncio.to_thread(client.link, told)
            await asyncio.to_thread(asks, link, whole_call(local))
            link.close()

        for _ in range(3):
            await used()
        threads = threads_of_links()
        for _ in range(10):
            await used()
        await becomes(lambda: shard.engine.load().trunks == 0)
        await becomes(lambda: threads_of_links() <= threads)


def threads_of_links() -> int:
    """Without those of pools, which grow up to their bound."""
    return sum(not thread.name.startswith(("asyncio", "expert call")) for thread in threading.enumerate())


@pytest.mark.parametrize("shares_memory", ["true", "false"])
async def test_a_shard_that_is_killed_is_noticed_at_once(nano: Path, local: LocalLayers, shares_memory: str) -> None:
    """The stage as it is started on its own: python -m services experts."""
    arguments = ("services", "experts", "--listen", "127.0.0.1:0", "--checkpoint", str(nano))
    settings = {"ANTIPHON_EXPERTS_SHARES_MEMORY": shares_memory, "ANTIPHON_EXPERTS_DTYPE": "float32"}
    with running(*arguments, **settings) as process:
        line = await asyncio.to_thread(process.wait_for, lambda line: "serves on port" in line)
        port = line.rpartition("port ")[2].rstrip('."}')
        async with experts_client() as client:
            told = await client.describe(f"127.0.0.1:{port}", timeout_seconds=ANSWER_SECONDS)
            link = await asyncio.to_thread(client.link, told)
            assert isinstance(link, UnixLink if shares_memory == "true" else GrpcLink)
            await asyncio.to_thread(asks, link, whole_call(local))
            process.ends(signal.SIGKILL)
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await asyncio.to_thread(asks, link, whole_call(local))
            assert time.monotonic() - began < ANSWER_SECONDS / 3
            link.close()


async def test_a_shard_that_hangs_costs_a_call_its_time_only(nano: Path, local: LocalLayers) -> None:
    arguments = ("services", "experts", "--listen", "127.0.0.1:0", "--checkpoint", str(nano))
    with running(*arguments, ANTIPHON_EXPERTS_DTYPE="float32") as process:
        line = await asyncio.to_thread(process.wait_for, lambda line: "serves on port" in line)
        port = line.rpartition("port ")[2].rstrip('."}')
        async with experts_client() as client:
            told = await client.describe(f"127.0.0.1:{port}", timeout_seconds=ANSWER_SECONDS)
            link = await asyncio.to_thread(client.link, told)
            await asyncio.to_thread(asks, link, whole_call(local))
            os.kill(process.pid, signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                await asyncio.to_thread(asks, link, whole_call(local), 0.2)
            assert time.monotonic() - began < ANSWER_SECONDS / 3
            process.resume()
            again = await asyncio.to_thread(client.link, told)
            assert len(await asyncio.to_thread(asks, again, whole_call(local))) == 10
            again.close()
