"""A decoder over the counting runner, for a test's length, and what tests ask of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from antiphon.engine.decoder import Decoder, Submission
from antiphon.engine.generation import Generation
from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import SchedulerLimits
from antiphon.engine.sequence import ALL_ROWS
from tests.engine.counting_runner import Counting, CountingRunner

CountingDecoder = Decoder[Counting, int]


@asynccontextmanager
async def decoding(
    runner: CountingRunner, *, pages: int = 64, max_running: int = 8, max_waiting: int = 8
) -> AsyncIterator[CountingDecoder]:
    """Leaves no page behind."""
    decoder: CountingDecoder = Decoder(
        runner, SchedulerLimits(max_running, max_waiting, 16), PagePool(pages, 4), name="counter"
    )
    decoder.start()
    try:
        yield decoder
    finally:
        await decoder.stop()
        assert decoder.load().pages_used == 0


def submission(
    outputs: int,
    *,
    prompt_rows: int = 4,
    available_rows: int = ALL_ROWS,
    max_untaken: int = 64,
    fails_at: int | None = None,
) -> Submission[Counting]:
    return Submission(
        Counting(outputs, fails_at=fails_at), prompt_rows, prompt_rows + outputs - 1, available_rows, max_untaken
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (what is waited for happens on another thread)
            await asyncio.sleep(0.001)


async def all_of(generation: Generation[int]) -> list[int]:
    return [value async for value in generation]
