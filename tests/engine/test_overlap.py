"""Steps that begin before the last one is read: the same outputs, nothing beyond an end, and nothing left behind."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from antiphon.engine.decoder import Decoder
from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import SchedulerLimits
from antiphon.errors import InternalError
from tests.engine.counting_decoder import CountingDecoder, all_of, submission, until
from tests.engine.counting_runner import CountingRunner
from tests.engine.late_runner import LateRunner


@asynccontextmanager
async def decoding(
    runner: LateRunner, *, pages: int = 64, max_running: int = 8, max_waiting: int = 64
) -> AsyncIterator[CountingDecoder]:
    limits = SchedulerLimits(max_running, max_waiting, 16)
    decoder: CountingDecoder = Decoder(runner, limits, PagePool(pages, 4), name="counter", overlaps=True)
    decoder.start()
    try:
        yield decoder
    finally:
        await decoder.stop()
        assert decoder.load().pages_used == 0


async def test_a_step_begins_before_the_one_before_it_is_read() -> None:
    runner = LateRunner()
    async with decoding(runner) as decoder:
        assert await all_of(decoder.submit(submission(3))) == [0, 1, 2]
    assert runner.events == [("begun", 1), ("begun", 2), ("read", 1), ("begun", 3), ("read", 2), ("read", 3)]


async def test_what_is_computed_beyond_an_end_is_dropped() -> None:
    """The fourth step begins before anybody knows that the third output was the last."""
    runner = LateRunner()
    async with decoding(runner) as decoder:
        work = submission(3, prompt_rows=5)
        work = type(work)(work.request, work.prompt_rows, work.max_rows + 10)
        generation = decoder.submit(work)
        assert await all_of(generation) == [0, 1, 2]
        assert generation.finish_reason == "stop"
        await until(lambda: work.request.released == 1)
        assert work.request.given == 3
        assert runner.rows[work.request] == [*range(5), 5, 6, 7]


async def test_a_longest_end_is_known_before() -> None:
    """No row is computed that could never have an output."""
    runner = LateRunner(stops=False)
    async with decoding(runner) as decoder:
        work = submission(3, prompt_rows=5)
        assert await all_of(decoder.submit(work)) == [0, 1, 2]
        await until(lambda: work.request.released == 1)
        assert runner.rows[work.request] == [*range(5), 5, 6]
        assert runner.steps == 3


async def test_a_sequence_pauses_exactly_until_its_reader_has_caught_up() -> None:
    runner = LateRunner()
    async with decoding(runner) as decoder:
        work = submission(50, max_untaken=3)
        generation = decoder.submit(work)
        await all_of(decoder.submit(submission(60)))
        assert work.request.given == 3
        assert await all_of(generation) == list(range(50))


async def test_cancelling_frees_the_pages_at_once_and_releases_after_the_step() -> None:
    runner = LateRunner()
    async with decoding(runner) as decoder:
        with runner.held_step():
            work = submission(50)
            generation = decoder.submit(work)
            await until(lambda: runner.steps == 2)
            await generation.aclose()
            assert decoder.load().pages_used == 0
            assert work.request.released == 0
        await until(lambda: work.request.released == 1)
        assert await all_of(generation) == []


@pytest.mark.parametrize("seed", range(5))
async def test_random_requests_in_a_small_store_get_all_their_outputs(seed: int) -> None:
    """They lose their pages in the middle of steps, and are computed again from what those steps gave."""
    dice = random.Random(seed)  # noqa: S311
    runner = LateRunner(stops=seed % 2 == 0)
    async with decoding(runner, pages=10, max_running=5) as decoder:
        works = [submission(dice.randint(1, 12), prompt_rows=dice.randint(1, 18)) for _ in range(16)]
        answers = await asyncio.gather(*(all_of(decoder.submit(work)) for work in works))
        assert answers == [list(range(work.request.outputs)) for work in works]
        assert decoder.load().preemptions > 0
        await until(lambda: all(work.request.released == 1 for work in works))


async def test_random_cancellations_leave_nothing() -> None:
    dice, runner = random.Random(7), LateRunner()  # noqa: S311
    async with decoding(runner, pages=12, max_running=4) as decoder:
        works = [submission(dice.randint(1, 30), prompt_rows=dice.randint(1, 18)) for _ in range(30)]

        async def read_some(place: int, count: int) -> None:
            async with aclosing(decoder.submit(works[place])) as generation:
                while count and (await anext(generation, None)) is not None:
                    count -= 1

        await asyncio.gather(*(read_some(place, dice.randint(0, 12)) for place in range(len(works))))
        assert decoder.load().pages_used == decoder.load().running == decoder.load().waiting == 0
        await until(lambda: all(work.request.released == 1 for work in works))


async def test_what_was_under_way_before_a_step_that_cannot_begin_is_delivered() -> None:
    runner = LateRunner()
    async with decoding(runner) as decoder:
        runner.fails_to_begin_at = 3
        generation = decoder.submit(submission(10))
        assert [await anext(generation) for _ in range(2)] == [0, 1]
        with pytest.raises(InternalError, match="RuntimeError: no memory is left"):
            await anext(generation)
        assert await all_of(decoder.submit(submission(4))) == [0, 1, 2, 3]


async def test_stopping_ends_what_is_under_way() -> None:
    runner = LateRunner()
    async with decoding(runner) as decoder:
        work = submission(10_000, prompt_rows=1)
        decoder.submit(type(work)(work.request, 1, 200))
        await until(lambda: runner.steps > 3)
        await decoder.stop()
        assert work.request.released == 1


def test_a_runner_that_cannot_launch_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected a runner that launches steps"):
        Decoder(CountingRunner(), SchedulerLimits(1, 1, 1), PagePool(1, 1), name="counter", overlaps=True)
