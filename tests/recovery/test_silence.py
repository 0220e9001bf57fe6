"""Slow is not dead: a stage that is silent is left only when it does not answer its health check either."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from antiphon.errors import Unavailable
from antiphon.hosting import fakes
from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.wire.call_limits import CallLimits
from antiphon.wire.channels import Channels
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from antiphon.wire.fakes import Behaviour, FakeCodec, FakeEncoders, FakeTalker, FakeThinker
from antiphon.wire.liveness import Liveness
from antiphon.wire.methods import SPEAK
from antiphon.wire.stages import Stages
from antiphon.wire.vigil import Vigil
from tests.hosting import requests

LIMITS = ServerLimits(drain_seconds=0.2)
QUICK = CallLimits(stall_seconds=0.05, recovery_seconds=0.05, alive_seconds=0.3)
FRAMES = 7


@asynccontextmanager
async def talking(address: str, talker: FakeTalker) -> AsyncIterator[None]:
    stages = Stages(FakeEncoders(), FakeThinker(), talker, FakeCodec())
    async with serving(fakes.hosted(stages), address, LIMITS):
        yield


async def speak(addresses: list[str], limits: CallLimits = QUICK) -> int:
    async with StageCaller(StaticDirectory({"talker": addresses}), limits) as caller:
        return len([answer async for answer in caller.stages().talker.speak(requests.speak((11, 12, 13, 2)))])


async def test_a_slow_stage_is_waited_for(tmp_path: Path) -> None:
    addresses = [f"unix:{tmp_path}/{name}" for name in ("slow", "other")]
    slow, other = FakeTalker(behaviour=Behaviour(pause_seconds=0.2)), FakeTalker()
    async with talking(addresses[0], slow), talking(addresses[1], other):
        assert await speak(addresses) == FRAMES
    assert other.behaviour.calls_begun == 0


async def test_an_address_that_accepts_and_says_nothing_is_passed_over_in_time(tmp_path: Path) -> None:
    """As the port of a process that has been stopped, or of a host that is gone."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = [f"127.0.0.1:{silent.getsockname()[1]}", f"unix:{tmp_path}/other"]
        began = time.monotonic()
        async with talking(addresses[1], FakeTalker()):
            assert await speak(addresses, CallLimits(connect_seconds=0.2)) == FRAMES
    assert 0.2 <= time.monotonic() - began < 1.5


async def test_who_failed_is_passed_over_until_he_serves_again(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/talker"
    channels = Channels()
    liveness = Liveness(channels, QUICK)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(channels.close)
        stack.push_async_callback(liveness.close)
        liveness.note_failure(address, SPEAK.service)
        await asyncio.sleep(0.2)
        assert list(liveness.failed) == [address]
        assert not await liveness.answers(address)
        await stack.enter_async_context(talking(address, FakeTalker()))
        async with asyncio.timeout(5):
            while liveness.failed:  # noqa: ASYNC110 - it asks in its own time
                await asyncio.sleep(0.02)
        assert await liveness.answers(address)


async def test_who_never_comes_back_is_forgotten(tmp_path: Path) -> None:
    channels = Channels()
    liveness = Liveness(channels, QUICK.model_copy(update={"forget_seconds": 0.2}))
    liveness.note_failure(f"unix:{tmp_path}/gone", SPEAK.service)
    await asyncio.sleep(0.6)
    assert not liveness.failed
    await liveness.close()
    await channels.close()


@pytest.mark.parametrize(
    ("owes", "is_awaited", "is_lost", "ends"),
    [(True, True, True, True), (False, True, True, False), (True, False, True, False), (True, True, False, False)],
    ids=["lost", "nothing is owed", "nobody waits", "alive"],
)
async def test_a_vigil_ends_only_where_all_speaks_for_it(
    owes: bool, is_awaited: bool, is_lost: bool, ends: bool
) -> None:
    async def lost() -> bool:
        return is_lost

    vigil = Vigil("codec", lambda: owes, lost, stall_seconds=0.02)
    keeping = asyncio.create_task(vigil.keep())
    if is_awaited:
        with vigil.awaiting():
            await asyncio.wait({keeping}, timeout=0.2)
    else:
        await asyncio.wait({keeping}, timeout=0.2)
    assert keeping.done() == ends
    if ends:
        with pytest.raises(Unavailable, match="The codec stage has fallen silent"):
            keeping.result()
    keeping.cancel()
