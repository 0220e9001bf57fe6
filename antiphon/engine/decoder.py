"""The loop that turns requests into outputs: schedule, run, postprocess, on a thread of its own.

The asyncio side submits and reads; it never waits for a step. Outputs cross over once a step and event loop, not once a
token. All bookkeeping happens under one lock, which is never held while the model runs.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Literal

import torch

from antiphon.engine.generation import End, Generation, OutputT
from antiphon.engine.kv_cache import PagePool
from antiphon.engine.load import Load
from antiphon.engine.page_keys import PageKeys
from antiphon.engine.runner import Outcome, Runner
from antiphon.engine.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.sequence import ALL_ROWS, Clock, RequestT, Sequence, Slice, Timings
from antiphon.errors import AntiphonError, InternalError, Unavailable

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Submission(Generic[RequestT]):
    request: RequestT
    prompt_rows: int
    # Rows at the longest end: prompt_rows + the most outputs - 1.
    max_rows: int
    # Rows whose input exists already; see Generation.extend.
    available_rows: int = ALL_ROWS
    # Outputs that may wait for the reader before the sequence pauses.
    max_untaken: int = 64
    # What its pages hold; without it they are shared with nobody.
    page_keys: PageKeys | None = None


@dataclass(frozen=True, slots=True)
class _SequenceLine(Generic[RequestT]):
    """Counters of a sequence that its reader writes: the scheduler sees them when it next looks, which `wake` makes it
    do. Each has one writer, so they need no lock."""

    sequence: Sequence[RequestT]
    wake: Callable[[], None]
    cancel_sequence: Callable[[Sequence[RequestT]], None]

    def extend(self, available_rows: int) -> None:
        self.sequence.available_rows = max(self.sequence.available_rows, available_rows)
        self.wake()

    def take(self) -> None:
        """Counts first and looks then: while it counts, the thread may fill the sequence up and go to sleep over it."""
        self.sequence.taken += 1
        if self.sequence.emitted - self.sequence.taken == self.sequence.max_untaken - 1:
            self.wake()

    def cancel(self) -> None:
        self.cancel_sequence(self.sequence)

    def timings(self) -> Timings:
        return self.sequence.clock.timings(time.perf_counter())

    def cached_rows(self) -> int:
        return self.sequence.cached_rows


# What one step has for the readers of one event loop.
_Mail = dict[asyncio.AbstractEventLoop, list[tuple[Generation[OutputT], tuple[OutputT, ...], End | None]]]


class Decoder(Generic[RequestT, OutputT]):
    """name: of the thread and in messages, such as "talker"."""

    def __init__(
        self, runner: Runner[RequestT, OutputT], limits: SchedulerLimits, pool: PagePool, *, name: str
    ) -> None:
        self._runner = runner
        self._name = name
        self._scheduler: Scheduler[RequestT] = Scheduler(limits, pool)
        self._generations: dict[int, tuple[Generation[OutputT], asyncio.AbstractEventLoop]] = {}
        self._departed: list[RequestT] = []
        self._phase: Literal["open", "draining", "closed"] = "open"
        self._failure: InternalError | None = None
        self._lock = threading.Lock()
        self._work_came = threading.Condition(self._lock)
        self._work_ended = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._work, name=f"{name}-decoder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, submission: Submission[RequestT]) -> Generation[OutputT]:
        """From a coroutine. Raises AtCapacity, ContextTooLong, or Unavailable when the decoder is stopping."""
        loop = asyncio.get_running_loop()
        sequence = Sequence(
            submission.request,
            submission.prompt_rows,
            submission.max_rows,
            submission.available_rows,
            submission.max_untaken,
            Clock(time.perf_counter()),
            submission.page_keys,
        )
        generation: Generation[OutputT] = Generation(_SequenceLine(sequence, self._wake, self._cancel), loop)
        with self._lock:
            if self._phase != "open":
                raise Unavailable(f"The {self._name} is stopping and takes no new work. Try again on another replica.")
            self._scheduler.add(sequence)
            self._generations[sequence.number] = (generation, loop)
            self._work_came.notify()
        return generation

    def load(self) -> Load:
        with self._lock:
            return Load.of(self._scheduler)

    def check(self) -> None:
        """Raises why the loop broke, if it did."""
        if self._failure is not None:
            raise self._failure

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Refuses new work, lets live sequences finish for so long, fails the rest with Unavailable."""
        with self._lock:
            self._phase = "draining" if self._phase == "open" else self._phase
        await asyncio.to_thread(self._drain_and_close, drain_seconds)

    def _drain_and_close(self, drain_seconds: float) -> None:
        with self._lock:
            self._work_ended.wait_for(lambda: not self._generations, drain_seconds)
        self._close(Unavailable(f"The {self._name} stopped before this request had ended. Send it again."))
        if self._thread.is_alive():
            self._thread.join()
        self._release()

    def _work(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:
            _log.exception("The loop of the %s broke.", self._name)
            self._failure = InternalError(f"The {self._name} broke and takes no more work: {_sentence(error)}")
            self._close(self._failure)

    def _step(self) -> bool:
        """False at the end. Nothing of the requests outlives it, however long the next one is waited for."""
        plan = self._schedule()
        if plan:
            self._postprocess(plan, self._run(plan))
        return bool(plan)

    def _schedule(self) -> list[Slice[RequestT]]:
        """Waits until there is something to do; empty means the end."""
        while True:
            self._release()
            with self._lock:
                plan = self._scheduler.schedule()
                if plan or self._phase == "closed":
                    return plan
                if not self._departed:
                    self._work_came.wait()

    def _run(self, plan: list[Slice[RequestT]]) -> list[Outcome[OutputT]]:
        """A step that fails ends the sequences that were in it, and no other; but a lost device ends the loop."""
        now = time.perf_counter()
        for part in plan:
            clock = part.sequence.clock
            clock.steps += 1
            if clock.started is None:
                clock.started = now
        try:
            outcomes = self._runner.run(plan)
            if len(outcomes) != len(plan):
                raise InternalError(f"Expected {len(plan)} outcomes of a step; the runner gave {len(outcomes)}.")
        except torch.AcceleratorError:
            raise  # whatever it computes after that fails too
        except Exception as error:
            _log.exception("A step of the %s failed; its %d requests end.", self._name, len(plan))
            return [Outcome(error=_as_family(error, self._name))] * len(plan)
        return outcomes

    def _postprocess(self, plan: list[Slice[RequestT]], outcomes: list[Outcome[OutputT]]) -> None:
        now = time.perf_counter()
        mail: _Mail[OutputT] = {}
        with self._lock:
            for part, outcome in zip(plan, outcomes, strict=True):
                self._apply(part, outcome, now, mail)
        self._deliver(mail)

    def _apply(self, part: Slice[RequestT], outcome: Outcome[OutputT], now: float, mail: _Mail[OutputT]) -> None:
        sequence = part.sequence
        if sequence.phase == "ended":
            return
        reader = self._generations[sequence.number]
        if outcome.values:
            sequence.emitted += len(outcome.values)
        if outcome.values and part.samples:
            sequence.clock.first_output = sequence.clock.first_output or now
        if outcome.error is None:
            self._scheduler.advance(part)
        end = None
        if outcome.finish_reason is not None or outcome.error is not None:
            end = End(outcome.finish_reason, outcome.error)
            self._leave(sequence)
        if outcome.values or end is not None:
            mail.setdefault(reader[1], []).append((reader[0], outcome.values, end))

    def _wake(self) -> None:
        with self._lock:
            self._work_came.notify()

    def _cancel(self, sequence: Sequence[RequestT]) -> None:
        with self._lock:
            self._leave(sequence)
            self._work_came.notify()

    def _leave(self, sequence: Sequence[RequestT]) -> None:
        """Under the lock: the sequence ends and its pages are free. Its request is released by the thread, which may be
        computing with it right now."""
        if sequence.phase == "ended":
            return
        self._scheduler.remove(sequence)
        sequence.clock.ended = time.perf_counter()
        del self._generations[sequence.number]
        self._departed.append(sequence.request)
        if not self._generations:
            self._work_ended.notify_all()

    def _release(self) -> None:
        with self._lock:
            departed, self._departed = self._departed, []
        for request in departed:
            self._runner.release(request)

    def _deliver(self, mail: _Mail[OutputT]) -> None:
        for loop, letters in mail.items():
            try:
                loop.call_soon_threadsafe(_hand_over, letters)
            except RuntimeError:  # the loop is closed: nobody will ever read these
                self._abandon(loop)

    def _abandon(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
                if self._generations[sequence.number][1] is loop:
                    self._leave(sequence)

    def _close(self, error: AntiphonError) -> None:
        """Ends every sequence with `error` and lets the thread end."""
        mail: _Mail[OutputT] = {}
        with self._lock:
            self._phase = "closed"
            for sequence in [*self._scheduler.running, *self._scheduler.waiting]:
                generation, loop = self._generations[sequence.number]
                mail.setdefault(loop, []).append((generation, (), End(error=error)))
                self._leave(sequence)
            self._work_came.notify_all()
        self._deliver(mail)


def _hand_over(letters: Iterable[tuple[Generation[OutputT], tuple[OutputT, ...], End | None]]) -> None:
    for generation, values, end in letters:
        generation.receive(values, end)


def _as_family(error: Exception, name: str) -> AntiphonError:
    if isinstance(error, AntiphonError):
        return error
    wrapped = InternalError(f"A step of the {name} failed: {_sentence(error)}")
    wrapped.__cause__ = error
    return wrapped


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
