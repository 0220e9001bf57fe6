"""The loop that turns requests into outputs: schedule, run, postprocess, on a thread of its own.

Where the device computes by itself, the next step begins before the outcomes of the last one are read: sequences go on
as if none had ended, and what one that had was given beyond its end is dropped.

The asyncio side submits and reads; it never waits for a step. Outputs cross over once a step and event loop, not once a
token. All bookkeeping happens under one lock, which is never held while the model runs.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Literal

from antiphon.engine.compute_gate import OPEN, Gate, gated
from antiphon.engine.generation import End, Generation, OutputT
from antiphon.engine.kv_cache import PagePool
from antiphon.engine.load import Load
from antiphon.engine.page_keys import PageKeys
from antiphon.engine.pulse import Pulse
from antiphon.engine.runner import LaunchingRunner, Outcome, Runner
from antiphon.engine.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.sequence import ALL_ROWS, Clock, RequestT, Sequence, Share, Slice
from antiphon.engine.sequence_line import SequenceLine
from antiphon.engine.step import Launch, Step, sentence
from antiphon.engine.step_watch import HANGING_SECONDS, StepWatch
from antiphon.errors import AntiphonError, InternalError, Unavailable, broken

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
    # For which a listener plays one output; zero where nobody listens.
    output_seconds: float = 0.0
    share: Share = field(default_factory=Share)
    # See Sequence.
    awaits_outputs: bool = False


# What one step has for the readers of one event loop.
_Mail = dict[asyncio.AbstractEventLoop, list[tuple[Generation[OutputT], tuple[OutputT, ...], End | None]]]


class Decoder(Generic[RequestT, OutputT]):
    """name: of the thread and in messages, such as "talker"."""

    def __init__(
        self,
        runner: Runner[RequestT, OutputT],
        limits: SchedulerLimits,
        pool: PagePool,
        *,
        name: str,
        overlaps: bool = False,
        gate: Gate = OPEN,
        longest_step_seconds: float = math.inf,
    ) -> None:
        """overlaps: a step begins before the one before it is read; takes a LaunchingRunner. gate: on which steps that
        are computed as they begin wait for those of other stages. longest_step_seconds: a step that takes longer never
        ends, and `check` gives the decoder up."""
        self._runner, self._overlaps, self._gate = runner, overlaps, gate
        launch: Launch[RequestT, OutputT] = _launched_by(runner) if overlaps else partial(_run, runner)
        self._pulse, self._watch = Pulse(), StepWatch(longest_step_seconds)
        # Whoever waits at the gate computes nothing, and does not hang.
        self._launch = gated(gate, self._watch.around(launch))
        self._under_way: Step[RequestT, OutputT] | None = None
        self._name = name
        self._scheduler: Scheduler[RequestT] = Scheduler(limits, pool)
        self._generations: dict[int, tuple[Generation[OutputT], asyncio.AbstractEventLoop]] = {}
        self._departed: list[Sequence[RequestT]] = []
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
            submission.output_seconds,
            submission.share,
            submission.awaits_outputs,
        )
        generation: Generation[OutputT] = Generation(SequenceLine(sequence, self._wake, self._cancel), loop)
        with self._lock:
            if self._phase != "open":
                raise Unavailable(f"The {self._name} is stopping and takes no new work. Try again on another replica.")
            self._scheduler.add(sequence)
            self._gate.arrive(self._name, sequence.share)
            self._generations[sequence.number] = (generation, loop)
            self._work_came.notify()
        return generation

    def load(self) -> Load:
        with self._lock:
            return Load.of(self._scheduler, self._pulse)

    def forget_pace(self) -> None:
        """What it has computed so far, to warm up, tells nothing of its load."""
        with self._lock:
            self._pulse = Pulse()

    def check(self) -> None:
        """Raises why the loop broke, if it did, and breaks it off where it hangs. To be called every few seconds."""
        if self._failure is None and self._watch.hangs():
            self._failure = InternalError(self._watch.sentence(self._name))
            self._close(broken(self._name))
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
            self._thread.join(None if self._failure is None else HANGING_SECONDS)
        if not self._thread.is_alive():
            self._release(is_over=True)

    def _work(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:
            _log.exception("The loop of the %s broke.", self._name)
            self._failure = InternalError(f"The {self._name} broke and takes no more work: {sentence(error)}")
            self._close(broken(self._name))

    def _step(self) -> bool:
        """False at the end. Nothing of the requests outlives it, however long the next one is waited for."""
        plan, before = self._schedule(), self._under_way
        self._take(plan, before)
        return bool(plan) or before is not None

    def _take(self, plan: list[Slice[RequestT]], before: Step[RequestT, OutputT] | None) -> None:
        self._under_way = Step.begin(plan, self._launch, self._name) if plan else None
        if before is not None:
            self._postprocess(before)
        if self._under_way is not None and not self._overlaps:
            self._postprocess(self._under_way)
            self._under_way = None

    def _schedule(self) -> list[Slice[RequestT]]:
        """Waits until there is something to do; empty means that nothing is but to end a step, or the end of all."""
        while True:
            self._release()
            with self._lock:
                self._look_at_listeners()
                plan = self._scheduler.schedule()
                for part in plan:
                    self._scheduler.begin(part)
                if plan or self._phase == "closed" or self._under_way is not None:
                    return plan
                if not self._departed:
                    self._work_came.wait()

    def _look_at_listeners(self) -> None:
        """Under the lock."""
        now = time.perf_counter()
        for sequence in self._scheduler.running:
            if sequence.output_seconds:
                sequence.lead_seconds = sequence.plays_until - now

    def _postprocess(self, step: Step[RequestT, OutputT]) -> None:
        with self._watch.step():
            outcomes = step.outcomes()
        now = time.perf_counter()
        mail: _Mail[OutputT] = {}
        with self._lock:
            self._pulse.step(step.plan, step.began, now)
            for part, outcome in zip(step.plan, outcomes, strict=True):
                self._apply(part, outcome, now, mail)
        self._deliver(mail)

    def _apply(self, part: Slice[RequestT], outcome: Outcome[OutputT], now: float, mail: _Mail[OutputT]) -> None:
        sequence = part.sequence
        self._scheduler.end(part, has_failed=outcome.error is not None)
        if sequence.phase == "ended":
            return
        reader = self._generations[sequence.number]
        if outcome.values:
            sequence.emitted += len(outcome.values)
            sequence.play(len(outcome.values), now)
        if outcome.values and part.samples and sequence.clock.first_output is None:
            sequence.clock.first_output = now
            self._pulse.first_output(sequence, now)
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
        self._gate.depart(self._name, sequence.share)
        sequence.clock.ended = time.perf_counter()
        del self._generations[sequence.number]
        self._departed.append(sequence)
        if not self._generations:
            self._work_ended.notify_all()

    def _release(self, *, is_over: bool = False) -> None:
        """The requests of those that have ended, once no step is under way with rows of them."""
        with self._lock:
            departed = [sequence for sequence in self._departed if is_over or not sequence.steps_under_way]
            self._departed = [sequence for sequence in self._departed if sequence not in departed]
        for sequence in departed:
            self._runner.release(sequence.request)

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


def _launched_by(runner: Runner[RequestT, OutputT]) -> Launch[RequestT, OutputT]:
    if not isinstance(runner, LaunchingRunner):
        raise ValueError(f"Expected a runner that launches steps, so that they can overlap; {runner!r} does not.")
    return runner.launch


def _run(runner: Runner[RequestT, OutputT], plan: list[Slice[RequestT]]) -> Callable[[], list[Outcome[OutputT]]]:
    outcomes = runner.run(plan)
    return lambda: outcomes
