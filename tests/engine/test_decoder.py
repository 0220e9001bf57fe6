"""The decoder: what reaches the reader, what stops it, and what is left behind (nothing)."""

import asyncio
import random
from contextlib import aclosing
from typing import Any

import pytest

from antiphon.engine.decoder import Decoder, Submission
from antiphon.engine.generation import Generation
from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import SchedulerLimits
from antiphon.engine.sequence import ALL_ROWS
from antiphon.errors import AtCapacity, InternalError, Unavailable
from tests.engine.counting_decoder import CountingDecoder, all_of, decoding, submission, until
from tests.engine.counting_runner import Counting, CountingRunner


async def test_outputs_come_in_order_and_the_end_says_why() -> None:
    async with decoding(CountingRunner()) as decoder:
        generation = decoder.submit(submission(5))
        assert [value async for value in generation] == [0, 1, 2, 3, 4]
        assert generation.finish_reason == "length"
        timings = generation.timings
        assert timings.steps == 5
        assert 0 <= timings.queue_ms <= timings.queue_ms + timings.first_output_ms <= timings.total_ms
        assert generation.timings == timings


async def test_many_requests_share_steps() -> None:
    runner = CountingRunner()
    async with decoding(runner) as decoder:
        with runner.held_step():
            generations = [decoder.submit(submission(20)) for _ in range(8)]
        answers = await asyncio.gather(*(all_of(generation) for generation in generations))
        assert answers == [list(range(20))] * 8
        assert runner.steps < 8 * 20 / 4


async def test_new_input_wakes_a_sequence_that_waits_for_it() -> None:
    runner = CountingRunner()
    async with decoding(runner) as decoder:
        generation = decoder.submit(submission(3, available_rows=2))
        await until(lambda: runner.steps == 1)
        generation.extend(4)
        assert await anext(generation) == 0
        generation.extend(5)
        assert await anext(generation) == 1
        assert runner.steps == 3
        generation.extend(ALL_ROWS)
        assert await all_of(generation) == [2]


async def test_a_sequence_pauses_until_its_reader_has_caught_up() -> None:
    runner = CountingRunner()
    async with decoding(runner) as decoder:
        work = submission(50, max_untaken=3)
        generation = decoder.submit(work)
        other = decoder.submit(submission(50))
        await all_of(other)
        assert work.request.given == 3
        assert await all_of(generation) == list(range(50))


async def test_cancelling_frees_the_pages_at_once_even_during_a_step() -> None:
    runner = CountingRunner()
    async with decoding(runner) as decoder:
        work = submission(50)
        with runner.held_step():
            generation = decoder.submit(work)
            await until(runner.step_began.is_set)
            assert decoder.load().pages_used == 1
            await generation.aclose()
            assert decoder.load().pages_used == 0
            assert work.request.released == 0
        await until(lambda: work.request.released == 1)
        assert await all_of(generation) == []
        assert generation.finish_reason is None
        assert len(work.request.steps) == 1


async def test_a_cancellation_during_a_step_harms_nobody_else_in_it() -> None:
    runner = CountingRunner()
    async with decoding(runner) as decoder:
        with runner.held_step():
            left, stays = decoder.submit(submission(50)), decoder.submit(submission(50))
            await until(runner.step_began.is_set)
            await left.aclose()
        assert await all_of(stays) == list(range(50))


async def test_cancelling_after_the_end_is_harmless() -> None:
    async with decoding(CountingRunner()) as decoder:
        work = submission(2)
        async with aclosing(decoder.submit(work)) as generation:
            assert await all_of(generation) == [0, 1]
        await generation.aclose()
        await until(lambda: work.request.released == 1)
        assert generation.finish_reason == "length"


async def test_twenty_random_cancellations_leave_nothing() -> None:
    dice, runner = random.Random(7), CountingRunner()  # noqa: S311
    async with decoding(runner, pages=12, max_running=4, max_waiting=64) as decoder:
        works = [submission(dice.randint(1, 30), prompt_rows=dice.randint(1, 18)) for _ in range(20)]
        await asyncio.gather(*(_read_some(decoder, work, dice.randint(0, 12)) for work in works))
        assert decoder.load().pages_used == decoder.load().running == decoder.load().waiting == 0
        await until(lambda: all(work.request.released == 1 for work in works))


async def test_a_failing_step_ends_only_those_in_it() -> None:
    runner = CountingRunner()
    async with decoding(runner) as decoder:
        bystander = decoder.submit(submission(2, available_rows=0))
        broken = decoder.submit(submission(10, fails_at=3))
        with pytest.raises(InternalError, match="A step of the counter failed: RuntimeError: the model broke"):
            await all_of(broken)
        bystander.extend(ALL_ROWS)
        assert await all_of(bystander) == [0, 1]


async def test_what_was_sampled_before_a_failure_is_delivered() -> None:
    runner = CountingRunner()
    async with decoding(runner) as decoder:
        generation = decoder.submit(submission(10, fails_at=3))
        assert [await anext(generation) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(InternalError):
            await anext(generation)


async def test_a_full_queue_refuses_at_once() -> None:
    runner = CountingRunner()
    async with decoding(runner, max_running=1, max_waiting=1) as decoder:
        with runner.held_step():
            first = decoder.submit(submission(2))
            await until(runner.step_began.is_set)
            second = decoder.submit(submission(2))
            with pytest.raises(AtCapacity):
                decoder.submit(submission(2))
        assert await all_of(first) == await all_of(second) == [0, 1]


async def test_stopping_lets_live_sequences_finish() -> None:
    runner = CountingRunner()
    async with decoding(runner) as decoder:
        generation = decoder.submit(submission(200))
        await asyncio.gather(decoder.stop(drain_seconds=10), _expect(generation, list(range(200))))
        with pytest.raises(Unavailable, match="counter is stopping"):
            decoder.submit(submission(1))


async def test_stopping_without_time_fails_what_is_left() -> None:
    async with decoding(CountingRunner()) as decoder:
        work = submission(3, available_rows=2)
        generation = decoder.submit(work)
        await decoder.stop()
        with pytest.raises(Unavailable, match="Send it again"):
            await all_of(generation)
        assert work.request.released == 1


async def test_a_decoder_that_never_started_can_be_stopped() -> None:
    decoder: CountingDecoder = Decoder(CountingRunner(), SchedulerLimits(1, 1, 1), PagePool(1, 1), name="counter")
    await decoder.stop()


async def test_a_runner_that_loses_an_outcome_is_found_out() -> None:
    class Forgetful(CountingRunner):
        def run(self, slices: Any) -> Any:
            return super().run(slices)[1:]

    async with decoding(Forgetful()) as decoder:
        with pytest.raises(InternalError, match="Expected 1 outcomes"):
            await all_of(decoder.submit(submission(3)))


async def test_outputs_cross_over_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    runner, crossings = CountingRunner(), 0
    loop = asyncio.get_running_loop()
    cross = loop.call_soon_threadsafe

    def counted(*arguments: Any) -> Any:
        nonlocal crossings
        crossings += 1
        return cross(*arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    async with decoding(runner) as decoder:
        await asyncio.gather(*(all_of(decoder.submit(submission(30))) for _ in range(8)))
        assert crossings <= runner.steps


def test_readers_whose_event_loop_is_gone_are_forgotten() -> None:
    runner = CountingRunner()
    decoder: CountingDecoder = Decoder(runner, SchedulerLimits(4, 4, 16), PagePool(8, 4), name="counter")
    decoder.start()
    work = submission(5)

    async def leave() -> None:
        decoder.submit(work)
        await until(runner.step_began.is_set)

    with runner.held_step():
        asyncio.run(leave())
    asyncio.run(until(lambda: work.request.released == 1))
    assert decoder.load().pages_used == 0
    asyncio.run(decoder.stop())


async def _expect(generation: Generation[int], values: list[int]) -> None:
    assert await all_of(generation) == values


async def _read_some(decoder: CountingDecoder, work: Submission[Counting], count: int) -> None:
    async with aclosing(decoder.submit(work)) as generation:
        while count and (await anext(generation, None)) is not None:
            count -= 1
