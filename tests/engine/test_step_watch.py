"""A step that does not end is given up after its time, so that its requests can go on elsewhere."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from antiphon.engine.batcher import Batcher
from antiphon.engine.compute_gate import ComputeGate
from antiphon.engine.decoder import Decoder
from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import SchedulerLimits
from antiphon.engine.step_watch import StepWatch
from antiphon.errors import REPLICA_BROKEN, InternalError, Unavailable
from tests.engine.counting_decoder import CountingDecoder, all_of, submission
from tests.engine.counting_runner import CountingRunner
from tests.engine.late_runner import LateRunner

LONGEST_SECONDS = 0.05


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def looks(watch: StepWatch, clock: Clock, *each_after_seconds: float) -> list[bool]:
    found = []
    for seconds in each_after_seconds:
        clock.seconds += seconds
        found.append(watch.hangs())
    return found


def test_a_step_hangs_that_is_still_under_way_after_its_time() -> None:
    clock = Clock()
    watch = StepWatch(30, clock)
    with watch.step():
        assert looks(watch, clock, 10, 10, 9.9, 0.2) == [False, False, False, True]


def test_what_is_idle_or_has_begun_another_step_does_not_hang() -> None:
    clock = Clock()
    watch = StepWatch(30, clock)
    assert looks(watch, clock, 100, 100, 100) == [False] * 3
    for _ in range(5):
        with watch.step():
            assert looks(watch, clock, 10, 10) == [False] * 2
    assert looks(watch, clock, 100, 100, 100) == [False] * 3


def test_a_process_that_was_stopped_for_an_hour_does_not_hang_when_it_goes_on() -> None:
    clock = Clock()
    watch = StepWatch(30, clock)
    with watch.step():
        assert looks(watch, clock, 2, 3600) == [False] * 2
    with watch.step():
        assert looks(watch, clock, 2) == [False]


@pytest.fixture
def device() -> Iterator[threading.Event]:
    """Hangs until the test is over."""
    goes_on = threading.Event()
    yield goes_on
    goes_on.set()


async def broken_off(check: Callable[[], None]) -> InternalError:
    async with asyncio.timeout(30):
        while True:
            try:
                check()
            except InternalError as error:
                return error
            await asyncio.sleep(LONGEST_SECONDS)


async def test_requests_of_a_decoder_whose_device_hangs_go_elsewhere(device: threading.Event) -> None:
    class Hanging(CountingRunner):
        def run(self, slices):  # type: ignore[no-untyped-def]
            device.wait()
            return super().run(slices)

    limits, pool = SchedulerLimits(1, 8, 16), PagePool(64, 4)
    decoder: CountingDecoder = Decoder(Hanging(), limits, pool, name="counter", longest_step_seconds=LONGEST_SECONDS)
    decoder.start()
    computed, waiting = decoder.submit(submission(2)), decoder.submit(submission(2))
    reading = [asyncio.create_task(all_of(each)) for each in (computed, waiting)]
    assert "more than 0.05 s" in (await broken_off(decoder.check)).message
    for each in reading:
        with pytest.raises(Unavailable) as told:
            await each
        assert told.value.code == REPLICA_BROKEN
    with pytest.raises(Unavailable):
        decoder.submit(submission(2))
    async with asyncio.timeout(30):
        await decoder.stop()
    assert decoder.load().pages_used == 0


async def test_outcomes_that_never_come_are_noticed_where_steps_overlap(device: threading.Event) -> None:
    class NeverRead(LateRunner):
        def _read(self, number, slices):  # type: ignore[no-untyped-def]
            device.wait()
            return super()._read(number, slices)

    limits, pool = SchedulerLimits(1, 8, 16), PagePool(64, 4)
    decoder: CountingDecoder = Decoder(
        NeverRead(), limits, pool, name="counter", overlaps=True, longest_step_seconds=LONGEST_SECONDS
    )
    decoder.start()
    reading = asyncio.create_task(all_of(decoder.submit(submission(3))))
    assert "more than 0.05 s" in (await broken_off(decoder.check)).message
    with pytest.raises(Unavailable):
        await reading
    async with asyncio.timeout(30):
        await decoder.stop()


async def test_a_step_that_waits_for_other_stages_does_not_hang() -> None:
    """However long the first output takes that it stands back for."""
    gate = ComputeGate(most_beside_first=1, most_wait_seconds=60)
    limits, pool = SchedulerLimits(1, 8, 16), PagePool(64, 4)
    decoder: CountingDecoder = Decoder(
        CountingRunner(), limits, pool, name="counter", gate=gate, longest_step_seconds=LONGEST_SECONDS
    )
    with gate.step("first"):
        decoder.start()
        reading = asyncio.create_task(all_of(decoder.submit(submission(2))))
        for _ in range(6):
            await asyncio.sleep(LONGEST_SECONDS)
            decoder.check()
        assert not reading.done()
    async with asyncio.timeout(30):
        assert await reading == [0, 1]
        await decoder.stop()


async def test_jobs_of_a_worker_whose_device_hangs_go_elsewhere(device: threading.Event) -> None:
    def hang(jobs: list[int]) -> list[int]:
        device.wait()
        return jobs

    batcher: Batcher[int, int] = Batcher(hang, max_waiting=8, name="doubler", longest_step_seconds=LONGEST_SECONDS)
    batcher.start()
    running = [asyncio.create_task(batcher.run(job)) for job in range(3)]
    assert "more than 0.05 s" in (await broken_off(batcher.check)).message
    for each in running:
        with pytest.raises(Unavailable) as told:
            await each
        assert told.value.code == REPLICA_BROKEN
    async with asyncio.timeout(30):
        await batcher.stop()
