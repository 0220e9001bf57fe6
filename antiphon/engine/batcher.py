"""Work without a sequence (encoders, codec): a bounded queue in front of a worker thread, most urgent first.

A job whose caller has hung up, or whose deadline has passed, is dropped before it runs. One that is merely due is late
at worst: it goes before all others.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Final, Generic, Literal, TypeVar

import torch

from antiphon.engine.compute_gate import OPEN, Gate, Urgency
from antiphon.engine.fairness import VirtualStarts
from antiphon.engine.sequence import Share
from antiphon.engine.step import sentence
from antiphon.engine.step_watch import HANGING_SECONDS, StepWatch
from antiphon.engine.urgency import ENDING_SECONDS
from antiphon.errors import AntiphonError, AtCapacity, DeadlineExceeded, InternalError, Unavailable, broken
from antiphon.scaling.recent import LATEST_SECONDS, RecentSum

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

_log = logging.getLogger(__name__)
_ANYBODY: Final = Share()


@dataclass(frozen=True, slots=True)
class BatcherLoad:
    # Until all that waits has been computed, by what jobs took in the latest seconds; where none has ended in these, by
    # what those under way have taken so far.
    backlog_seconds: float
    # Share of the latest seconds in which it computed.
    busy_share: float


@dataclass(order=True, slots=True)
class _Ticket(Generic[JobT, ResultT]):
    due: float
    is_batch: bool
    start: float
    number: int
    deadline: float = field(compare=False)
    job: JobT = field(compare=False)
    answer: "asyncio.Future[ResultT]" = field(compare=False)
    waits: bool = field(compare=False, default=True)
    # Unknown where the caller does not say for whom he asks.
    share: Share | None = field(compare=False, default=None)

    def give(self, result: ResultT) -> None:
        self._settle(partial(self.answer.set_result, result))

    def fail(self, error: AntiphonError) -> None:
        self._settle(partial(self.answer.set_exception, error))

    def _settle(self, answer: Callable[[], None]) -> None:
        """From the worker thread."""
        try:
            self.answer.get_loop().call_soon_threadsafe(_unless_done, self.answer, answer)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


class Batcher(Generic[JobT, ResultT]):
    """compute: called on the worker thread with 1 to `max_batch` jobs; gives one result a job, in order.

    joins: whether a job may be computed with those that are more urgent; called on the worker thread, too.
    gate: before what is computed on cores that are shared with other stages. is_first: whether the job's listener has
    nothing yet; likewise."""

    def __init__(
        self,
        compute: Callable[[list[JobT]], list[ResultT]],
        *,
        max_waiting: int,
        max_batch: int = 1,
        joins: Callable[[Sequence[JobT], JobT], bool] = lambda _more_urgent, _job: True,
        name: str = "batcher",
        gate: Gate = OPEN,
        is_first: Callable[[JobT], bool] = lambda _job: True,
        longest_step_seconds: float = math.inf,
    ) -> None:
        self._compute = compute
        self._joins = joins
        self._gate, self._is_first = gate, is_first
        self._watch, self._at_work = StepWatch(longest_step_seconds), list[_Ticket[JobT, ResultT]]()
        self._began_seconds: float | None = None
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._name = name
        self._queue: list[_Ticket[JobT, ResultT]] = []
        self._arrivals = 0
        self._starts = VirtualStarts()
        self._phase: Literal["open", "draining", "closed"] = "open"
        self._failure: InternalError | None = None
        self._computed_seconds, self._computed_jobs = RecentSum(), RecentSum()
        self._lock = threading.Lock()
        self._work_came = threading.Condition(self._lock)
        self._work_ended = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._work, name=f"{name}-batcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def run(
        self, job: JobT, *, deadline: float | None = None, due: float | None = None, share: Share | None = None
    ) -> ResultT:
        """Waits for its result. Earliest due first, and due at their deadline if at no other time; jobs with neither
        come last, tenants in turn and each of them in order. Both are of time.monotonic().

        Raises AtCapacity when the queue is full, DeadlineExceeded, Unavailable when stopping, what `compute` raised."""
        latest = math.inf if deadline is None else deadline
        ticket = self._enqueue(job, latest, latest if due is None else due, share)
        try:
            return await ticket.answer
        finally:
            self._hang_up(ticket)

    def waiting(self) -> int:
        with self._lock:
            return len(self._queue)

    def load(self) -> BatcherLoad:
        with self._lock:
            now = time.monotonic()
            so_far = 0.0 if self._began_seconds is None else now - self._began_seconds
            busy, jobs = self._computed_seconds.rate(now), self._computed_jobs.rate(now)
            job_seconds = busy / jobs if jobs else so_far / max(1, len(self._at_work))
            return BatcherLoad(len(self._queue) * job_seconds, min(busy + so_far / LATEST_SECONDS, 1.0))

    def check(self) -> None:
        """Raises why the worker broke, if it did, and breaks it off where it hangs. To be called every few seconds."""
        if self._failure is None and self._watch.hangs():
            self._give_up(self._at_work, self._watch.sentence(self._name))
        if self._failure is not None:
            raise self._failure

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Refuses new jobs, lets waiting ones finish for so long, fails the rest with Unavailable, ends the thread."""
        with self._lock:
            self._phase = "draining" if self._phase == "open" else self._phase
        await asyncio.to_thread(self._drain_and_close, drain_seconds)

    def _enqueue(self, job: JobT, deadline: float, due: float, share: Share | None) -> _Ticket[JobT, ResultT]:
        answer: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._phase != "open":
                raise Unavailable(f"The {self._name} is stopping and takes no new work. Try again on another replica.")
            if len(self._queue) >= self._max_waiting:
                raise AtCapacity(f"All {self._max_waiting} places in the queue of the {self._name} are taken.")
            whose = share or _ANYBODY
            start = self._starts.next(whose, cost=1.0)
            ticket = _Ticket(due, whose.is_batch, start, self._arrivals, deadline, job, answer, share=share)
            self._arrivals += 1
            heappush(self._queue, ticket)
            self._work_came.notify()
        return ticket

    def _hang_up(self, ticket: _Ticket[JobT, ResultT]) -> None:
        """A job that has not begun goes, and all that it holds: nobody waits for it."""
        with self._lock:
            if ticket.waits:
                self._queue.remove(ticket)
                heapify(self._queue)

    def _work(self) -> None:
        try:
            while self._work_once():
                pass
        except Exception as error:
            _log.exception("The loop of the %s broke.", self._name)
            self._give_up(self._at_work, f"The {self._name} broke and takes no more work: {sentence(error)}")

    def _work_once(self) -> bool:
        """False at the end. Nothing of the jobs outlives it, however long the next ones are waited for."""
        batch = self._next_batch()
        if not batch:
            return False
        with self._lock:
            began = self._began_seconds = time.monotonic()
        try:
            with self._gate.step(self._urgency(batch)), self._watch.step():
                results = self._compute([ticket.job for ticket in batch])
            if len(results) != len(batch):
                raise InternalError(f"Expected {len(batch)} results of the {self._name}; it gave {len(results)}.")
        except torch.AcceleratorError as error:
            self._break(batch, error)
        except Exception as error:
            self._fail(batch, self._as_family(error))
        else:
            for ticket, result in zip(batch, results, strict=True):
                ticket.give(result)
        self._count(len(batch), began)
        return True

    def _urgency(self, batch: list[_Ticket[JobT, ResultT]]) -> Urgency:
        if any(self._gate.is_outnumbered(ticket.share) and self._is_first(ticket.job) for ticket in batch):
            return "first"
        return "ending" if batch[0].due < time.monotonic() + ENDING_SECONDS else "ordinary"

    def _count(self, jobs: int, began: float) -> None:
        now = time.monotonic()
        with self._lock:
            self._at_work, self._began_seconds = [], None
            self._computed_seconds.add(now, now - began)
            self._computed_jobs.add(now, jobs)
            self._work_ended.notify_all()

    def _next_batch(self) -> list[_Ticket[JobT, ResultT]]:
        """The most urgent jobs; empty means the end."""
        with self._lock:
            while self._phase != "closed":
                if batch := self._popped():
                    return batch
                self._work_ended.notify_all()
                self._work_came.wait()
        return []

    def _popped(self) -> list[_Ticket[JobT, ResultT]]:
        """Under the lock. A job that is too late fails instead; one that does not join the others waits on."""
        batch: list[_Ticket[JobT, ResultT]] = []
        self._at_work = batch
        passed_over: list[_Ticket[JobT, ResultT]] = []
        now = time.monotonic()
        try:
            while self._queue and len(batch) < self._max_batch:
                passed_over.append(ticket := heappop(self._queue))
                if ticket.deadline < now:
                    ticket.waits = False
                    ticket.fail(DeadlineExceeded(f"The time was over before the {self._name} began."))
                elif not batch or self._joins([each.job for each in batch], ticket.job):
                    ticket.waits = False
                    self._starts.begin(ticket.start)
                    batch.append(ticket)
        finally:
            for ticket in passed_over:
                if ticket.waits:
                    heappush(self._queue, ticket)
        return batch

    def _break(self, batch: list[_Ticket[JobT, ResultT]], error: torch.AcceleratorError) -> None:
        """The device is lost: whatever is computed after that fails too."""
        _log.error("The %s broke.", self._name, exc_info=error)
        self._give_up(batch, f"The {self._name} broke and takes no more work: AcceleratorError: {error}")

    def _give_up(self, batch: list[_Ticket[JobT, ResultT]], why: str) -> None:
        self._failure = InternalError(why)
        self._fail(batch, broken(self._name))
        self._close(broken(self._name))

    def _fail(self, batch: list[_Ticket[JobT, ResultT]], error: AntiphonError) -> None:
        for ticket in batch:
            ticket.fail(error)

    def _as_family(self, error: Exception) -> AntiphonError:
        if isinstance(error, AntiphonError):
            return error
        _log.error("The %s failed.", self._name, exc_info=error)
        wrapped = InternalError(f"The {self._name} failed: {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return wrapped

    def _drain_and_close(self, drain_seconds: float) -> None:
        with self._lock:
            self._work_ended.wait_for(lambda: not self._queue, drain_seconds)
        self._close(Unavailable(f"The {self._name} stopped."))
        if self._thread.is_alive():
            self._thread.join(None if self._failure is None else HANGING_SECONDS)

    def _close(self, error: AntiphonError) -> None:
        """Fails what waits, and lets the thread end."""
        with self._lock:
            self._phase = "closed"
            left, self._queue = self._queue, []
            for ticket in left:
                ticket.waits = False
            self._work_came.notify_all()
        self._fail(left, error)


def _unless_done(future: "asyncio.Future[ResultT]", answer: Callable[[], None]) -> None:
    if not future.done():
        answer()
