"""A hosted server: health, reflection, start, failure to start, and an end that loses nothing."""

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from antiphon import errors
from antiphon.hosting import fakes
from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.telemetry.metrics import process_metrics
from antiphon.wire import methods
from antiphon.wire.clients import CallLimits, StageCaller
from antiphon.wire.directory import StaticDirectory
from antiphon.wire.fakes import Behaviour, FakeCodec, FakeEncoders, FakeTalker, FakeThinker, fake_stages
from antiphon.wire.stages import Stages
from tests.hosting import requests
from tests.hosting.conftest import Opener

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def health(port: int, service: str) -> object:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def test_health_is_told_per_service_and_for_all() -> None:
    broken = False

    def check() -> None:
        if broken:
            raise RuntimeError("the engine's thread has died")

    *others, codec = fakes.hosted(fake_stages())
    services = [*others, replace(codec, check=check)]
    limits = ServerLimits(health_period_seconds=0.02, drain_seconds=0)
    async with serving(services, "127.0.0.1:0", limits) as server:
        assert await health(server.port, "") == SERVING
        assert await health(server.port, methods.DECODE.service) == SERVING
        with pytest.raises(grpc.aio.AioRpcError):
            await health(server.port, "antiphon.v1.Unknown")
        broken = True
        await asyncio.sleep(0.1)
        assert await health(server.port, "") == NOT_SERVING
        assert await health(server.port, methods.DECODE.service) == NOT_SERVING
        assert await health(server.port, methods.SPEAK.service) == SERVING


async def test_reflection_names_the_services_and_their_messages() -> None:
    def look(port: int) -> tuple[list[str], str]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol(methods.SPEAK.service)
            return list(database.get_services()), file.name

    async with serving(fakes.hosted(fake_stages()), "127.0.0.1:0", ServerLimits(drain_seconds=0)) as server:
        services, file_name = await asyncio.to_thread(look, server.port)
    assert {methods.ENCODE.service, methods.SPEAK.service, "grpc.health.v1.Health"} <= set(services)
    assert file_name == "antiphon/v1/talker_service.proto"


async def test_a_stop_lets_open_streams_finish_and_refuses_new_ones(opened: Opener) -> None:
    talker = FakeTalker(behaviour=Behaviour(pause_seconds=0.02))
    stages = Stages(FakeEncoders(), FakeThinker(), talker, FakeCodec())
    async with opened(stages, ServerLimits(drain_seconds=5), CallLimits(attempts=1)) as (server, caller):
        hold = asyncio.Event()
        answers = caller.stages().talker.speak(requests.speak(range(2, 20), hold_before_last=hold))
        async with aclosing(answers):
            await anext(answers)
            drain = asyncio.create_task(server.drain())
            await asyncio.sleep(0.1)
            with pytest.raises(errors.Unavailable):
                await anext(caller.stages().thinker.generate(requests.generate()))
            assert not drain.done()
            hold.set()
            rest = [answer async for answer in answers]
        assert rest[-1].end.frame_count == 20
        await drain


async def test_a_stop_ends_streams_that_outlast_the_grace(opened: Opener) -> None:
    talker = FakeTalker(behaviour=Behaviour(pause_seconds=30))
    stages = Stages(FakeEncoders(), FakeThinker(), talker, FakeCodec())
    async with opened(stages, ServerLimits(drain_seconds=0.1), CallLimits(attempts=1)) as (server, caller):
        answer = asyncio.create_task(anext(caller.stages().talker.speak(requests.speak())))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        await server.drain()
        assert time.monotonic() - started < 3
        with pytest.raises(errors.Unavailable):
            await answer
    assert talker.behaviour.open_calls == 0


async def test_a_service_that_drains_is_called_until_it_has_done_so() -> None:
    """It says that it does not serve, and answers all the same; what is left of the grace is for open streams."""
    begun, goes, graces = asyncio.Event(), asyncio.Event(), list[float]()

    async def drain(seconds: float) -> None:
        graces.append(seconds)
        begun.set()
        await goes.wait()

    *others, codec = fakes.hosted(fake_stages())
    async with serving([*others, replace(codec, drain=drain)], "127.0.0.1:0", ServerLimits(drain_seconds=5)) as server:
        directory = StaticDirectory({"thinker": f"127.0.0.1:{server.port}"})
        draining = asyncio.create_task(server.drain())
        async with StageCaller(directory, CallLimits(attempts=1)) as caller:
            await begun.wait()
            assert await health(server.port, "") == NOT_SERVING
            async with aclosing(caller.stages().thinker.generate(requests.generate())) as answers:
                assert [answer async for answer in answers]
            assert not draining.done()
            goes.set()
            await draining
            with pytest.raises(errors.Unavailable):
                await anext(caller.stages().thinker.generate(requests.generate()))
    assert graces[0] == 5


async def test_services_start_together_and_close_though_one_cannot_start() -> None:
    events: list[str] = []

    async def slow_start() -> None:
        events.append("slow begins")
        await asyncio.sleep(0.05)
        events.append("slow started")

    async def failing_start() -> None:
        events.append("failing begins")
        await asyncio.sleep(0)
        raise errors.CheckpointError("It lacks talker.model.norm.weight.")

    async def close() -> None:
        events.append("closed")

    first, second, *_ = fakes.hosted(fake_stages())
    services = [replace(first, start=slow_start, close=close), replace(second, start=failing_start, close=close)]
    with pytest.raises(errors.CheckpointError, match="lacks talker"):
        async with serving(services, "127.0.0.1:0"):
            pass
    assert events[:2] == ["slow begins", "failing begins"]
    assert events[-2:] == ["closed", "closed"]


async def test_a_taken_port_is_said_plainly() -> None:
    services = fakes.hosted(fake_stages())
    async with serving(services, "127.0.0.1:0", ServerLimits(drain_seconds=0)) as server:
        with pytest.raises(errors.Unavailable, match=f"Cannot listen on 127.0.0.1:{server.port}"):
            async with serving(services, f"127.0.0.1:{server.port}"):
                pass


async def test_keepalive_pings_of_our_client_are_allowed_by_our_server(tmp_path: Path) -> None:
    from antiphon.wire.channels import ChannelLimits

    address = f"unix:{tmp_path}/s"
    limits = ServerLimits(min_ping_interval_ms=50, drain_seconds=0)
    talker = FakeTalker(behaviour=Behaviour(pause_seconds=0.8))
    stages = Stages(FakeEncoders(), FakeThinker(), talker, FakeCodec())
    directory = StaticDirectory({"talker": [address]})
    async with (
        serving(fakes.hosted(stages), address, limits),
        StageCaller(directory, channel_limits=ChannelLimits(keepalive_every_ms=100)) as caller,
    ):
        assert len([answer async for answer in caller.stages().talker.speak(requests.speak((1, 2)))]) == 5


async def test_a_server_takes_no_more_calls_than_its_bound(opened: Opener) -> None:
    hold = asyncio.Event()
    async with opened(fake_stages(), ServerLimits(max_active_calls=2, drain_seconds=1)) as (server, caller):
        talker = caller.stages().talker
        first, second = (talker.speak(requests.speak(hold_before_last=hold)) for _ in range(2))
        await anext(first)
        await anext(second)
        with pytest.raises(errors.AtCapacity, match="2 calls"):
            await anext(talker.speak(requests.speak()))
        server.active.limit = 3
        await anext(talker.speak(requests.speak()))
        hold.set()
        for answers in (first, second):
            _ = [answer async for answer in answers]


async def test_calls_are_counted_by_stage_and_status(opened: Opener) -> None:
    def counted(status: str) -> float:
        labels = {"stage": "thinker", "status": status}
        return process_metrics().registry.get_sample_value("antiphon_requests_total", labels) or 0.0

    before_ok, before_full = counted("OK"), counted("RESOURCE_EXHAUSTED")
    thinker = FakeThinker()
    async with opened(Stages(FakeEncoders(), thinker, FakeTalker(), FakeCodec())) as (_, caller):
        _ = [answer async for answer in caller.stages().thinker.generate(requests.generate())]
        thinker.behaviour.failure = errors.AtCapacity("Full.")
        with pytest.raises(errors.AtCapacity):
            await anext(caller.stages().thinker.generate(requests.generate()))
    assert counted("OK") == before_ok + 1
    assert counted("RESOURCE_EXHAUSTED") == before_full + 1
