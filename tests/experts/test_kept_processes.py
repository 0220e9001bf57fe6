"""Shards in processes of their own keep their placement: a killed one is replaced, a new one takes its part, a leaving
one hands over, and whoever calls is answered all the time by a copy that is there."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from antiphon.errors import AntiphonError
from antiphon.experts.table import ShardDescription
from antiphon.hosting.free_port import free_port
from antiphon.wire.expert_links.client import ExpertsClient
from tests.experts.running_shards import experts_client
from tests.hosting.processes import Process, running

pytestmark = pytest.mark.slow

# Four in all, one of which comes later.
SHARDS = 4
COPIES = 2
PATIENCE_SECONDS = 90.0


class Fleet:
    def __init__(self, nano: Path, stack: ExitStack) -> None:
        self._nano, self._stack = nano, stack
        self.addresses = [f"127.0.0.1:{free_port('127.0.0.1')}" for _ in range(SHARDS)]
        self.processes: dict[str, Process] = {}

    def start(self, address: str, holds: str) -> None:
        self.processes[address] = self._stack.enter_context(
            running(
                *("services", "experts", "--listen", address, "--checkpoint", str(self._nano), "--drain-seconds", "30"),
                ANTIPHON_DIRECTORY_EXPERTS=",".join(self.addresses),
                ANTIPHON_EXPERTS_HOLDS=holds,
                ANTIPHON_EXPERTS_COPIES=str(COPIES),
                # With three of them, a quarter more than two of each.
                ANTIPHON_EXPERTS_CAPACITY="26",
                ANTIPHON_EXPERTS_DTYPE="float32",
                ANTIPHON_EXPERTS_KEEPER_LEAST_COPIES=str(COPIES),
                ANTIPHON_EXPERTS_KEEPER_LOOK_EVERY_SECONDS="0.2",
                ANTIPHON_EXPERTS_KEEPER_SETTLE_SECONDS="0.5",
                ANTIPHON_EXPERTS_KEEPER_PLAN_EVERY_SECONDS="1",
            )
        )


@pytest.fixture
def fleet(nano: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(nano, stack)


async def described(client: ExpertsClient, addresses: Sequence[str]) -> list[ShardDescription]:
    found = []
    for address in addresses:
        with suppress(AntiphonError):
            found.append(await client.describe(address, timeout_seconds=10))
    return found


async def copies(client: ExpertsClient, addresses: Sequence[str]) -> int:
    """The fewest that any expert has on shards that stay."""
    staying = [shard for shard in await described(client, addresses) if not shard.is_draining]
    if not staying:
        return 0
    return min(sum(key in shard.held for shard in staying) for key in staying[0].model.keys)


async def until(client: ExpertsClient, fleet: Fleet, wanted: int, never_below: int = 0) -> None:
    """Every expert has so many copies, and meanwhile never fewer than that."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (now := await copies(client, fleet.addresses)) < wanted:
            assert now >= never_below
            await asyncio.sleep(0.1)


async def test_copies_come_back_after_a_kill_and_nothing_is_missing_meanwhile(fleet: Fleet) -> None:
    first, *_, last = fleet.addresses
    for place, address in enumerate(fleet.addresses[:3], 1):
        fleet.start(address, f"{place}/3")
    async with experts_client() as client:
        await until(client, fleet, COPIES)
        # Whoever rules while the others are there.
        fleet.start(last, "none")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not any(len(shard.held) > 8 for shard in await described(client, [last])):
                assert await copies(client, fleet.addresses) >= COPIES
                await asyncio.sleep(0.1)
        ruling = min(fleet.addresses)
        fleet.processes[ruling].kill()
        assert await copies(client, fleet.addresses) >= COPIES - 1
        await until(client, fleet, COPIES, never_below=COPIES - 1)
        leaving = next(address for address in (first, last) if address != ruling)
        ends = asyncio.create_task(asyncio.to_thread(fleet.processes[leaving].ends, signal.SIGTERM))
        while not ends.done():
            assert await copies(client, fleet.addresses) >= 1
            await asyncio.sleep(0.1)
        assert await ends == 0
        left = await described(client, fleet.addresses)
        assert len(left) == SHARDS - 2
        assert frozenset().union(*(shard.held for shard in left)) == left[0].model.keys
