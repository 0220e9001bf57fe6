"""A shard that drains waits while nobody can say whether others do without it, but not beyond its grace."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from antiphon.experts.table import ExpertKey
from services.experts.config import ExpertsSettings
from services.experts.engine import ExpertsEngine


class Others:
    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = RuntimeError("the list of shards is away")

    async def do_without(self, held: frozenset[ExpertKey]) -> bool:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return bool(held)


@pytest.fixture
async def engine(nano: Path) -> AsyncIterator[ExpertsEngine]:
    engine = ExpertsEngine(ExpertsSettings(checkpoint=nano, idle_seconds=0.01))
    await engine.start()
    yield engine
    await engine.close()


async def test_it_goes_only_after_it_could_be_said(engine: ExpertsEngine) -> None:
    others = Others()
    async with asyncio.timeout(20):
        draining = asyncio.create_task(engine.drain(60.0, others.do_without))
        while others.asked < 3 and not draining.done():  # noqa: ASYNC110 - the engine asks when it likes
            await asyncio.sleep(0.01)
        assert not draining.done()
        assert not engine.is_stopping
        others.failure = None
        await draining
    assert engine.is_stopping


async def test_it_stops_when_its_grace_is_over(engine: ExpertsEngine) -> None:
    others = Others()
    async with asyncio.timeout(20):
        await engine.drain(0.5, others.do_without)
    assert others.asked > 0
    assert engine.is_stopping


async def test_it_stops_when_draining_is_given_up(engine: ExpertsEngine) -> None:
    draining = asyncio.create_task(engine.drain(60.0, Others().do_without))
    await asyncio.sleep(0)
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)
    assert engine.is_stopping
