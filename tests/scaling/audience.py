"""Those who ask a stage on Ray Serve for one answer after the other, and compare each with what it has to be."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from antiphon.hosting.replica_directory import ReplicaDirectory
from antiphon.telemetry.names import StageName

_CROWD: Final = 6


@dataclass
class Audience:
    # The answer to the question of this number.
    ask: Callable[[int], Awaitable[object]]
    questions: int
    pause_seconds: float = 0.0
    expected: list[object] = field(default_factory=list)
    heard: int = 0
    goes_on: bool = True

    async def begin(self) -> None:
        self.expected = [await self.ask(number) for number in range(self.questions)]

    async def listen(self, first: int) -> None:
        while self.goes_on:
            number = (first + self.heard) % self.questions
            assert await self.ask(number) == self.expected[number]
            self.heard += 1
            await asyncio.sleep(self.pause_seconds)


async def rise_and_fall(
    directory: ReplicaDirectory, stage: StageName, most: int, crowd: Audience, few: Audience
) -> None:
    """A crowd comes, and stays for some answers more once there are so many replicas; a few stay until there is one
    again."""
    async with asyncio.TaskGroup() as listening:
        for first in range(_CROWD):
            listening.create_task(crowd.listen(first))
        listening.create_task(few.listen(0))
        await until(lambda: _are(directory, stage, most))
        enough = crowd.heard + 2 * _CROWD
        await until(lambda: _has_heard(crowd, enough))
        crowd.goes_on = False
        await until(lambda: _are(directory, stage, 1))
        few.goes_on = False
    assert min(crowd.heard, few.heard) > most


async def until(condition: Callable[[], Awaitable[bool]], timeout_seconds: float = 240.0) -> None:
    async with asyncio.timeout(timeout_seconds):
        while not await condition():  # noqa: ASYNC110 - what is waited for lies in another process
            await asyncio.sleep(0.2)


async def _has_heard(audience: Audience, count: int) -> bool:
    return audience.heard >= count


async def _are(directory: ReplicaDirectory, stage: StageName, count: int) -> bool:
    return sum(not report.is_draining for report in await directory.reports(stage)) == count
