"""Channels stay open while somebody calls through them, and no longer than is of use."""

import asyncio
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from antiphon.wire.channels import ChannelLimits, Channels
from antiphon.wire.health import is_serving

LIMITS = ChannelLimits(unused_seconds=60.0)


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def state(channel: grpc.aio.Channel) -> grpc.ChannelConnectivity:
    return channel.get_state()


async def test_an_address_has_one_channel_for_all_its_calls() -> None:
    channels = Channels()
    with channels.to("unix:/nowhere") as first, channels.to("unix:/nowhere") as second:
        assert first is second
    with channels.to("unix:/nowhere") as third, channels.to("unix:/elsewhere") as other:
        assert third is first
        assert other is not first
    await channels.close()


async def test_a_channel_that_nobody_has_used_for_a_while_is_closed_when_others_are_used() -> None:
    clock = Clock()
    channels = Channels(LIMITS, clock)
    with channels.to("unix:/gone") as gone:
        pass
    clock.seconds += 59
    with channels.to("unix:/here") as here:
        pass
    await asyncio.sleep(0)
    assert state(gone) is grpc.ChannelConnectivity.IDLE
    clock.seconds += 2
    with channels.to("unix:/here"):
        pass
    await asyncio.sleep(0.05)
    assert state(gone) is grpc.ChannelConnectivity.SHUTDOWN
    assert state(here) is not grpc.ChannelConnectivity.SHUTDOWN
    with channels.to("unix:/gone") as anew:
        assert anew is not gone
    await channels.close()


async def test_a_channel_is_never_closed_under_a_call_however_long_that_takes() -> None:
    clock = Clock()
    channels = Channels(LIMITS, clock)
    with channels.to("unix:/long") as long:
        for _ in range(3):
            clock.seconds += 100
            with channels.to("unix:/short"):
                pass
            await asyncio.sleep(0.01)
        assert state(long) is not grpc.ChannelConnectivity.SHUTDOWN
        with channels.to("unix:/long") as still:
            assert still is long
    await channels.close()


async def test_a_channel_of_before_is_closed_while_older_streams_still_end() -> None:
    clock = Clock()
    channels = Channels(LIMITS, clock)
    streams = [channels.to("unix:/streams") for _ in range(3)]
    for stream in streams:
        stream.__enter__()
    with channels.to("unix:/gone") as gone:
        pass
    for stream in streams:
        clock.seconds += 50
        stream.__exit__(None, None, None)
        await asyncio.sleep(0.01)
    assert state(gone) is grpc.ChannelConnectivity.SHUTDOWN
    await channels.close()


async def test_an_address_whose_channel_was_closed_is_reached_by_another(tmp_path: Path) -> None:
    clock, address = Clock(), f"unix:{tmp_path}/server"
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    server.add_insecure_port(address)
    await server.start()
    channels = Channels(LIMITS, clock)
    assert await is_serving(channels, address)
    clock.seconds += 61
    with channels.to("unix:/other"):
        pass
    await asyncio.sleep(0.05)
    assert await is_serving(channels, address)
    await channels.close()
    await server.stop(None)
