"""The batcher: urgency, batches, and jobs that nobody waits for any more."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest
import torch

from antiphon.engine.batcher import Batcher, BatcherLoad
from antiphon.engine.sequence import Share
from antiphon.errors import AtCapacity, DeadlineExceeded, InternalError, Unavailable
from antiphon.scaling.recent import LATEST_SECONDS


class Doubling:
    """Doubles numbers; remembers its batches; can be held."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began = threading.Event()
        self._may_end = threading.Event()
        self._may_end.set()
        self.breaks: Exception | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        self._may_end.clear()
        try:
            yield
        finally:
            self._may_end.set()

    def __call__(self, jobs: list[int]) -> list[int]:
        self.batches.append(jobs)
        self.began.set()
        assert self._may_end.wait(10)
        if self.breaks is not None:
            raise self.breaks
        if -1 in jobs:
            raise RuntimeError("no negative numbers")
        return [2 * job for job in jobs]


@asynccontextmanager
async def batching(
    compute: Doubling,
    *,
    max_waiting: int = 16,
    max_batch: int = 1,
    joins: Callable[[Sequence[int], int], bool] = lambda _more_urgent, _job: True,
) -> AsyncIterator[Batcher[int, int]]:
    batcher = Batcher(compute, max_waiting=max_waiting, max_batch=max_batch, joins=joins, name="doubler")
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.stop()


async def occupied(batcher: Batcher[int, int], compute: Doubling) -> "asyncio.Task[int]":
    """The worker is busy with job 0 until the step is let go."""
    busy = asyncio.create_task(batcher.run(0))
    while not compute.began.is_set():  # noqa: ASYNC110 (set on the worker thread)
        await asyncio.sleep(0.001)
    return busy


async def test_the_most_urgent_job_runs_first() -> None:
    compute = Doubling()
    async with batching(compute) as batcher:
        with compute.held():
            busy = await occupied(batcher, compute)
            soon = time.monotonic() + 60
            jobs = [(1, None), (2, soon + 9), (3, soon), (4, None)]
            tasks = [asyncio.create_task(batcher.run(job, deadline=deadline)) for job, deadline in jobs]
            await asyncio.sleep(0)
        assert await asyncio.gather(busy, *tasks) == [0, 2, 4, 6, 8]
    assert compute.batches == [[0], [3], [2], [1], [4]]


async def test_tenants_take_turns_however_many_jobs_one_of_them_sends() -> None:
    compute = Doubling()
    async with batching(compute) as batcher:
        with compute.held():
            first = asyncio.create_task(batcher.run(0))
            await asyncio.to_thread(compute.began.wait, 10)
            flood = [asyncio.create_task(batcher.run(job, share=Share("flood"))) for job in range(1, 9)]
            heavy = [asyncio.create_task(batcher.run(job, share=Share("heavy", 2.0))) for job in range(11, 15)]
            late = [asyncio.create_task(batcher.run(99, share=Share("nightly", is_batch=True)))]
            await asyncio.sleep(0.05)
        await asyncio.gather(first, *flood, *heavy, *late)
    order = [batch[0] for batch in compute.batches]
    assert order[:8] == [0, 1, 11, 12, 2, 13, 14, 3]
    assert order[-1] == 99, "batch work takes what interactive work leaves"


async def test_a_job_that_is_due_is_late_at_worst() -> None:
    compute = Doubling()
    async with batching(compute) as batcher:
        with compute.held():
            busy = await occupied(batcher, compute)
            now = time.monotonic()
            dues = [(1, now + 9), (2, now - 9), (3, None), (4, now)]
            tasks = [asyncio.create_task(batcher.run(job, due=due)) for job, due in dues]
            tasks.append(asyncio.create_task(batcher.run(5, deadline=now + 60, due=now - 5)))
            await asyncio.sleep(0)
        assert await asyncio.gather(busy, *tasks) == [0, 2, 4, 6, 8, 10]
    assert compute.batches == [[0], [2], [5], [4], [1], [3]]


async def test_jobs_that_do_not_join_wait_for_their_own_turn() -> None:
    def has_its_parity(more_urgent: Sequence[int], job: int) -> bool:
        return all(job % 2 == other % 2 for other in more_urgent)

    compute = Doubling()
    async with batching(compute, max_batch=3, joins=has_its_parity) as batcher:
        with compute.held():
            busy = await occupied(batcher, compute)
            tasks = [asyncio.create_task(batcher.run(job)) for job in (1, 2, 3, 4, 5, 6, 7)]
            await asyncio.sleep(0)
        await asyncio.gather(busy, *tasks)
    assert compute.batches == [[0], [1, 3, 5], [2, 4, 6], [7]]


async def test_long_jobs_are_told_while_they_run_and_not_only_when_they_end() -> None:
    """From a worker that told of ended jobs alone, one with jobs of a minute would look idle for most of it."""
    compute = Doubling()
    async with batching(compute) as batcher:
        assert batcher.load() == BatcherLoad(0.0, 0.0)
        with compute.held():
            busy = await occupied(batcher, compute)
            waiting = [asyncio.create_task(batcher.run(job)) for job in (1, 2)]
            began = time.monotonic()
            await asyncio.sleep(0.3)
            least = time.monotonic() - began
            load = batcher.load()
        await asyncio.gather(busy, *waiting)
    assert least / LATEST_SECONDS <= load.busy_share < 1
    assert load.backlog_seconds >= 2 * least
    assert load.backlog_seconds == pytest.approx(2 * LATEST_SECONDS * load.busy_share)


async def test_waiting_jobs_run_together() -> None:
    compute = Doubling()
    async with batching(compute, max_batch=2) as batcher:
        with compute.held():
            busy = await occupied(batcher, compute)
            tasks = [asyncio.create_task(batcher.run(job)) for job in (1, 2, 3)]
            await asyncio.sleep(0)
        assert await asyncio.gather(busy, *tasks) == [0, 2, 4, 6]
    assert compute.batches == [[0], [1, 2], [3]]


async def test_a_job_whose_caller_hung_up_is_never_run() -> None:
    compute = Doubling()
    async with batching(compute) as batcher:
        with compute.held():
            busy = await occupied(batcher, compute)
            task = asyncio.create_task(batcher.run(1))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
            assert batcher.waiting() == 0
        await busy
        assert await batcher.run(5) == 10
    assert compute.batches == [[0], [5]]


class Heavy:
    """A job that can be watched; doubled it is 2."""

    def __rmul__(self, factor: int) -> int:
        return factor


async def test_nothing_is_kept_of_a_job_that_is_over() -> None:
    """Whether nobody waits for it any more, and others are busy, or it was done, and no other follows."""
    compute = Doubling()
    async with batching(compute) as batcher:
        with compute.held():
            busy = await occupied(batcher, compute)
            left = Heavy()
            task = asyncio.create_task(batcher.run(left))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            gone = weakref.ref(left)
            del left, task
            await asyncio.sleep(0)
            gc.collect()
            assert gone() is None
        await busy
        done = Heavy()
        gone = weakref.ref(done)
        assert await batcher.run(done) == 2
        compute.batches.clear()
        del done
        gc.collect()
        async with asyncio.timeout(10):
            while gone() is not None:  # noqa: ASYNC110 (let go of on the worker thread)
                await asyncio.sleep(0.001)


async def test_a_lost_device_ends_the_worker_and_says_so() -> None:
    """No later job can succeed: whoever watches over the stage must learn that, and nobody may be let in."""
    compute = Doubling()
    async with batching(compute) as batcher:
        batcher.check()
        with compute.held():
            compute.breaks = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            busy = await occupied(batcher, compute)
            waiting = asyncio.create_task(batcher.run(1))
            await asyncio.sleep(0)
        for task in (busy, waiting):
            with pytest.raises(Unavailable, match="The doubler broke before this request had ended"):
                await task
        with pytest.raises(InternalError, match="The doubler broke and takes no more work: AcceleratorError: CUDA"):
            batcher.check()
        with pytest.raises(Unavailable):
            await batcher.run(2)


async def test_a_worker_that_breaks_between_batches_says_so() -> None:
    def joins(_more_urgent: Sequence[int], _job: int) -> bool:
        raise KeyError("what nobody expected")

    compute = Doubling()
    batcher: Batcher[int, int] = Batcher(compute, max_waiting=8, max_batch=2, joins=joins, name="doubler")
    batcher.start()
    try:
        with compute.held():
            busy = await occupied(batcher, compute)
            waiting = [asyncio.create_task(batcher.run(job)) for job in (1, 2)]
            await asyncio.sleep(0)
        assert await busy is not None
        async with asyncio.timeout(30):
            for task in waiting:
                with pytest.raises(Unavailable, match="The doubler broke before this request had ended"):
                    await task
        with pytest.raises(InternalError, match="takes no more work: KeyError"):
            batcher.check()
    finally:
        await batcher.stop()


async def test_a_job_that_is_too_late_is_never_run() -> None:
    compute = Doubling()
    async with batching(compute) as batcher:
        with pytest.raises(DeadlineExceeded):
            await batcher.run(1, deadline=time.monotonic() - 1)
    assert compute.batches == []


async def test_a_full_queue_refuses() -> None:
    compute = Doubling()
    async with batching(compute, max_waiting=1) as batcher:
        with compute.held():
            busy = await occupied(batcher, compute)
            waiting = asyncio.create_task(batcher.run(1))
            await asyncio.sleep(0)
            with pytest.raises(AtCapacity):
                await batcher.run(2)
        assert [await busy, await waiting] == [0, 2]


async def test_a_failure_reaches_its_caller_and_the_worker_lives_on() -> None:
    async with batching(Doubling()) as batcher:
        with pytest.raises(InternalError, match="The doubler failed: RuntimeError: no negative numbers"):
            await batcher.run(-1)
        assert await batcher.run(4) == 8


async def test_stopping_drains_or_refuses() -> None:
    compute = Doubling()
    async with batching(compute) as batcher:
        with compute.held():
            busy = await occupied(batcher, compute)
            waiting = asyncio.create_task(batcher.run(1))
            await asyncio.sleep(0)
            stopping = asyncio.create_task(batcher.stop(drain_seconds=10))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable):
                await batcher.run(2)
        await stopping
        assert [await busy, await waiting] == [0, 2]


async def test_stopping_without_time_fails_what_waits() -> None:
    compute = Doubling()
    async with batching(compute) as batcher:
        with compute.held():
            busy = await occupied(batcher, compute)
            waiting = asyncio.create_task(batcher.run(1))
            await asyncio.sleep(0)
            stopping = asyncio.create_task(batcher.stop())
            with pytest.raises(Unavailable):
                await waiting
        await stopping
        assert await busy == 0
