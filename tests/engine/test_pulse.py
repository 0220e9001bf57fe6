"""What a decoder tells of its latest seconds: rows, outputs, steps, who waited for the first output, who hears silence
soon."""

import asyncio

import pytest

from antiphon.engine.kv_cache import PagePool
from antiphon.engine.load import Load
from antiphon.engine.pulse import Pulse
from antiphon.engine.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.sequence import Sequence, Slice
from tests.engine.counting_decoder import all_of, decoding, submission, until
from tests.engine.counting_runner import CountingRunner


def part(sequence: Sequence[str], first_row: int, row_count: int, *, samples: bool) -> Slice[str]:
    return Slice(sequence, first_row, row_count, samples, [])


def test_rows_of_prompts_outputs_and_steps_are_told_apart() -> None:
    pulse, sequence = Pulse(), Sequence("speech", prompt_rows=10, max_rows=100)
    for second in range(10):
        pulse.step([part(sequence, 0, 10, samples=True)], began=second + 0.0, now=second + 0.1)
        pulse.step([part(sequence, 10, 1, samples=True)], began=second + 0.1, now=second + 0.15)
    pace = pulse.pace([], now=10.0)
    assert pace.prompt_rate == pytest.approx(10.0, rel=0.02)
    assert pace.output_rate == pytest.approx(2.0, rel=0.02)
    assert pace.step_p95_seconds == pytest.approx(0.1)


def test_a_step_that_begins_before_the_last_one_is_over_counts_from_there() -> None:
    pulse, sequence = Pulse(), Sequence("speech", prompt_rows=10, max_rows=100)
    pulse.step([part(sequence, 10, 1, samples=True)], began=0.0, now=1.0)
    pulse.step([part(sequence, 11, 1, samples=True)], began=0.5, now=1.25)
    assert pulse.pace([], now=2.0).step_p95_seconds == pytest.approx(0.25)  # of one and a quarter, the lower


def test_the_first_output_is_waited_for_from_when_all_was_there() -> None:
    pulse, sequence = Pulse(), Sequence("speech", prompt_rows=10, max_rows=100)
    sequence.clock.arrived, sequence.clock.complete = 1.0, 5.0
    pulse.first_output(sequence, now=5.25)
    assert pulse.pace([], now=6.0).first_p95_seconds == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("plays_until", "available", "short"),
    [(100.02, 13, True), (99.0, 13, True), (100.5, 13, False), (99.0, 12, False)],
    ids=["soon", "already", "in plenty", "nothing to go on with"],
)
def test_listeners_about_to_hear_silence_are_those_who_could_be_given_more(
    plays_until: float, available: int, short: bool
) -> None:
    sequence = Sequence("speech", 10, 100, available_rows=available, output_seconds=0.08)
    sequence.computed_rows, sequence.sampled_rows, sequence.emitted = 12, 3, 3
    sequence.plays_until = plays_until
    pace = Pulse().pace([sequence], now=100.0)
    assert (pace.playing, pace.short_leads) == (1, int(short))


def test_prompts_that_could_be_computed_wait_and_those_without_input_do_not() -> None:
    scheduler: Scheduler[str] = Scheduler(SchedulerLimits(8, 8, 16), PagePool(64, 4))
    scheduler.add(Sequence("read me", prompt_rows=40, max_rows=50))
    scheduler.add(Sequence("not here yet", prompt_rows=30, max_rows=50, available_rows=0))
    assert Load.of(scheduler, Pulse()).waiting_rows == 40
    for each in scheduler.schedule():
        scheduler.advance(each)
    assert Load.of(scheduler, Pulse()).waiting_rows == 40 - 16


async def test_a_decoder_tells_its_pace_and_forgets_how_it_warmed_up() -> None:
    async with decoding(CountingRunner()) as decoder:
        await all_of(decoder.submit(submission(5)))
        await until(lambda: decoder.load().pace.output_rate > 0)
        assert decoder.load().pace.prompt_rate > 0
        decoder.forget_pace()
        assert decoder.load().pace.output_rate == 0
        late = decoder.submit(submission(2, available_rows=0))
        await asyncio.sleep(1.0)  # the input is made elsewhere
        late.extend(100)
        await all_of(late)
        assert 0 < decoder.load().pace.first_p95_seconds < 1.0
