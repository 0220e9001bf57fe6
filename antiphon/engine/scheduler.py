"""Which rows of which sequences the next step computes. Bookkeeping only: no tensor, no clock, no thread.

Decodes first, then prefill chunks, oldest first, under one budget of rows a step; when they do not all fit, some of it
goes to the shortest first. Pages that others filled with the same are taken over, not computed (`prefix_cache`). Pages
are taken on demand; when none is left the newest sequence gives its pages back and is computed again later, once there
is room for it and for those beside it to grow. A sequence that lacks input, or whose reader is behind, is passed over;
what it holds is taken from it only when nobody else can move. While a listener is about to hear silence, those whose
listeners have plenty sit out: a step takes the longer the more take part. Where several tenants want the step, it is
shared between them (`fairness`), and those who go on by one row are as many as a step is still quick with.
"""

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic

from antiphon.engine.fairness import (
    OUTPUT_COST,
    VirtualCounters,
    in_turn,
    leaves_room,
    newest_of_those_above,
    rows_to_share,
)
from antiphon.engine.kv_cache import PagePool
from antiphon.engine.prefix_cache import PrefixCache
from antiphon.engine.sequence import RequestT, Sequence, Slice
from antiphon.engine.step_plan import StepPlan
from antiphon.engine.urgency import FirstOutputs, is_ending, without_plenty
from antiphon.engine.waiting_line import WaitingLine
from antiphon.errors import AtCapacity, ContextTooLong

# One in so many rows of prompts goes to the shortest first, not to the oldest.
_SHORTEST_FIRST: Final = 4
# When somebody is expected, others have one in so many of a shared step's sequences, and of its rows of prompts.
_SHORT_STEP_SEQUENCES: Final = 2
_SHORT_STEP_ROWS: Final = 4


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    # Sequences that hold pages at one time.
    max_running: int
    # Sequences that wait for their turn before a new one is refused; one that lost its pages waits in any case.
    max_waiting: int
    # Rows of one step, decodes and prefill chunks together.
    rows_per_step: int
    # Sequences that go on by one row in a step that several tenants want; None takes all.
    shared_step_sequences: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_running <= self.rows_per_step or self.max_waiting < 1:
            raise ValueError(
                f"Expected 1 <= max_running <= rows_per_step and max_waiting >= 1, so that every running sequence can "
                f"decode in each step; got {self}."
            )


class Scheduler(Generic[RequestT]):
    """`running` and `waiting` are in order of arrival."""

    def __init__(self, limits: SchedulerLimits, pool: PagePool) -> None:
        self.limits = limits
        self.pool = pool
        self.cache = PrefixCache(pool)
        self.line: WaitingLine[RequestT] = WaitingLine(limits.max_running, pool, self.cache)
        self.running, self.waiting = self.line.running, self.line.waiting
        self.counters = VirtualCounters()
        self.firsts = FirstOutputs(self.counters.present, limits.shared_step_sequences is not None)
        # Times that a sequence lost its pages, so far.
        self.preemptions = 0
        self._arrivals = 0
        self._was_hurried = False

    def add(self, sequence: Sequence[RequestT]) -> None:
        """Raises ContextTooLong when it could never fit, AtCapacity when too many wait already."""
        if self.pool.pages_for(sequence.max_rows) > self.pool.page_count:
            raise ContextTooLong(
                f"Expected at most {self.pool.page_count * self.pool.page_size} rows of prompt and answer; this "
                f"request may need {sequence.max_rows}. Shorten the prompt or lower the limit of the answer."
            )
        own = sum(other.share.tenant == sequence.share.tenant for other in self.waiting)
        if not leaves_room(self.limits.max_waiting, len(self.waiting), own, sequence.share):
            raise AtCapacity(f"All {self.limits.max_waiting} places in the queue are taken. Try again soon.")
        sequence.number = self._arrivals
        self._arrivals += 1
        self.waiting.append(sequence)
        self.counters.arrive(sequence.share)

    def schedule(self) -> list[Slice[RequestT]]:
        """The next step; empty when no sequence can be worked on."""
        plan = self._plan()
        while not plan.slices and self._take_from_an_idle_one():
            plan = self._plan()
        self._was_hurried = plan.is_hurried
        return list(plan.slices.values())

    def begin(self, part: Slice[RequestT]) -> None:
        """Counts the rows of a slice whose step begins, and the row that its output adds, for the next step. What is
        computed again because others needed the pages is nobody's debt."""
        again = max(0, min(part.sequence.reached_rows, part.first_row + part.row_count) - part.first_row)
        self.counters.charge(part.sequence.share, part.row_count - again + OUTPUT_COST * part.samples)
        part.sequence.computed_rows = part.first_row + part.row_count
        part.sequence.sampled_rows += part.samples
        part.sequence.steps_under_way += 1

    def end(self, part: Slice[RequestT], *, has_failed: bool = False) -> None:
        """The step is over; what it computed can be found by others, unless it failed, which ends the sequence."""
        part.sequence.steps_under_way -= 1
        if not has_failed:
            self.cache.publish(part.sequence, part.first_row + part.row_count)

    def advance(self, part: Slice[RequestT]) -> None:
        """Both, for a step that is over as soon as it has begun."""
        self.begin(part)
        self.end(part)

    def remove(self, sequence: Sequence[RequestT]) -> None:
        """Ends a sequence, wherever it is; its pages are free at once."""
        if sequence.phase == "ended":
            return
        (self.running if sequence.phase == "running" else self.waiting).remove(sequence)
        self._free_pages(sequence)
        self.counters.depart(sequence.share)
        sequence.phase = "ended"

    def _plan(self) -> StepPlan[RequestT]:
        plan: StepPlan[RequestT] = StepPlan(self.limits.rows_per_step)
        decodes, prefills = self._pending()
        self._hurry(plan, decodes, prefills)
        if plan.is_hurried:
            return plan
        plan.is_short = self.firsts.expected([*self.running, *self.waiting])
        for sequence in self._decodes_in_turn(plan, without_plenty(decodes)):
            self._extend(plan, sequence)
        self._prefill(plan, prefills)
        if not plan.slices:  # those in need want what those who have plenty hold, and get it when they have ended
            for sequence in decodes:
                self._extend(plan, sequence)
        return plan

    def _pending(self) -> tuple[list[Sequence[RequestT]], list[Sequence[RequestT]]]:
        """Of those who run: who goes on by one row, and who by more."""
        decodes, prefills = [], []
        for sequence in self.running:
            pending = sequence.pending_rows
            if pending == 1:
                decodes.append(sequence)
            elif pending > 1:
                prefills.append(sequence)
        return decodes, prefills

    def _hurry(
        self, plan: StepPlan[RequestT], decodes: list[Sequence[RequestT]], prefills: list[Sequence[RequestT]]
    ) -> None:
        """First outputs of outnumbered tenants are computed by themselves, beside speech that is about to end: whoever
        sits out goes on in the next step, so in no two steps in a row."""
        if self._was_hurried:
            return
        ready = [each for each in [*decodes, *prefills, *self.line.ready()] if self.firsts.are_awaited(each)]
        short = [each for each in ready if self._rows_left(each) <= plan.budget]
        if not short:
            return
        for sequence in decodes:
            if sequence not in short and is_ending(sequence):
                self._extend(plan, sequence)
        for sequence in short:
            if sequence.phase == "running":
                self.cache.adopt(sequence)
        self._serve(plan, in_turn(short, self._rows_left, self.counters))
        plan.is_hurried = any(plan.rows_of(each) for each in short)

    def _decodes_in_turn(self, plan: StepPlan[RequestT], decodes: list[Sequence[RequestT]]) -> list[Sequence[RequestT]]:
        """Of a tenant those first who hear silence first."""
        if not self.counters.has_several:
            return decodes
        decodes = in_turn(sorted(decodes, key=_lead_seconds), _decode_cost, self.counters)
        most = self.limits.shared_step_sequences
        if most is not None and plan.is_short:
            most = max(1, most // _SHORT_STEP_SEQUENCES)
        if most is None or len(decodes) <= most:
            return decodes
        # Who still waits for his input is here, too: the step before the one that he wants is the one he waits for.
        wanting = {each.share.tenant for each in [*self.running, *self.waiting] if not each.is_full}
        return decodes[:most] if len(wanting) > 1 else decodes

    def _prefill(self, plan: StepPlan[RequestT], running: list[Sequence[RequestT]]) -> None:
        """Were it oldest first only, everybody would wait until a long prompt before him has been read."""
        running = [sequence for sequence in running if sequence.phase == "running"]  # decodes may have taken its pages
        for sequence in running:
            self.cache.adopt(sequence)
        wanted = in_turn(running + self.line.ready(), self._rows_left, self.counters)
        if self.counters.has_several:
            plan.budget = min(plan.budget, rows_to_share(wanted, self._rows_left, self.limits.rows_per_step))
            if plan.is_short and not any(self.firsts.are_awaited(each) for each in wanted):
                plan.budget = min(plan.budget, max(1, self.limits.rows_per_step // _SHORT_STEP_ROWS))
        if sum(self._rows_left(sequence) for sequence in wanted) <= plan.budget:
            return self._serve(plan, wanted)
        kept = plan.budget // _SHORTEST_FIRST
        plan.budget -= kept
        self._serve(plan, wanted)
        plan.budget += kept
        # The shortest pass those before them, who may not even have been asked.
        plan.stuck |= {each.number: each for each in wanted if each.phase == "waiting" and not self.line.fits(each)}
        return self._serve(plan, sorted(wanted, key=lambda each: self._rows_left(each) - plan.rows_of(each)))

    def _rows_left(self, sequence: Sequence[RequestT]) -> int:
        """Rows that have to be computed, of those that could be."""
        waits = sequence.phase == "waiting"
        return sequence.pending_rows - (self.cache.reusable_pages(sequence) * self.pool.page_size if waits else 0)

    def _serve(self, plan: StepPlan[RequestT], sequences: Iterable[Sequence[RequestT]]) -> None:
        for sequence in sequences:
            if plan.budget < 1:
                return
            if sequence.phase == "waiting" and not self._begins(plan, sequence):
                continue
            self._extend(plan, sequence)

    def _begins(self, plan: StepPlan[RequestT], sequence: Sequence[RequestT]) -> bool:
        """One that waits gets its place, or waits on."""
        if not (self.line.has_place and self.line.leaves_room(sequence)):
            return False
        if not self.line.fits(sequence):
            plan.stuck[sequence.number] = sequence
            return False
        before = list(plan.stuck.values())
        if not self.line.may_pass(sequence, before):
            return False
        self.line.passed(sequence, before)
        self._admit(sequence)
        return True

    def _admit(self, sequence: Sequence[RequestT]) -> None:
        self.waiting.remove(sequence)
        sequence.phase = "running"
        insort(self.running, sequence, key=_number)
        self.cache.adopt(sequence)

    def _extend(self, plan: StepPlan[RequestT], sequence: Sequence[RequestT]) -> None:
        if sequence.phase != "running" or plan.budget < 1:
            return
        room = self._room(plan, sequence)
        planned = plan.rows_of(sequence)
        rows = min(sequence.pending_rows - planned, plan.budget, room - planned)
        if rows > 0:
            missing = self.pool.pages_for(sequence.computed_rows + planned + rows) - len(sequence.pages)
            if missing > 0:
                sequence.pages += self.pool.take(missing)
            plan.add(sequence, rows)

    def _room(self, plan: StepPlan[RequestT], sequence: Sequence[RequestT]) -> int:
        """Rows for which there are pages; makes room for one by preempting newer sequences."""
        while True:
            pages = len(sequence.pages) + self.pool.free_count
            room = pages * self.pool.page_size - sequence.computed_rows
            if room > 0:
                return room
            giver = newest_of_those_above(self.running, self.pool.page_count, self.counters)
            if giver is sequence:
                return room
            plan.drop(giver)
            self._preempt(giver)

    def _preempt(self, sequence: Sequence[RequestT]) -> None:
        self.running.remove(sequence)
        self._free_pages(sequence)
        sequence.reached_rows = max(sequence.reached_rows, sequence.computed_rows)
        sequence.computed_rows = sequence.published_pages = 0
        self.preemptions += 1
        sequence.phase = "waiting"
        insort(self.waiting, sequence, key=_number)

    def _free_pages(self, sequence: Sequence[RequestT]) -> None:
        """Their list stays whole for a step that is reading it right now: it ends before anybody else may write."""
        self.pool.give_back(sequence.pages)
        sequence.pages = []

    def _take_from_an_idle_one(self) -> bool:
        """Nobody can move: if that is for want of what an idle sequence holds, the newest idle one gives it up."""
        stuck = any(s.can_sample for s in self.waiting) or any(s.pending_rows > 0 for s in self.running)
        idle = [s for s in self.running if s.pending_rows == 0 and not s.steps_under_way]
        if stuck and idle:
            self._preempt(idle[-1])
        return stuck and bool(idle)


def _decode_cost(_: Sequence[RequestT]) -> float:
    return 1 + OUTPUT_COST


def _lead_seconds(sequence: Sequence[RequestT]) -> float:
    return sequence.lead_seconds


def _number(sequence: Sequence[RequestT]) -> int:
    return sequence.number
