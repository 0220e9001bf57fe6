"""Which rows of which sequences the next step computes. Bookkeeping only: no tensor, no clock, no thread.

Decodes first, then prefill chunks, oldest first, under one budget of rows a step. Pages are taken on demand; when they
run out the newest sequence gives its pages back and is computed again later. A sequence that lacks input, or whose reader
is behind, is passed over and delays nobody.
"""

from bisect import insort
from dataclasses import dataclass
from typing import Generic

from antiphon.engine.kv_cache import PagePool
from antiphon.engine.sequence import RequestT, Sequence, Slice
from antiphon.errors import AtCapacity, ContextTooLong


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    # Sequences that hold pages at one time.
    max_running: int
    # Sequences that wait for their turn.
    max_waiting: int
    # Rows of one step, decodes and prefill chunks together.
    rows_per_step: int

    def __post_init__(self) -> None:
        if not 1 <= self.max_running <= self.rows_per_step or self.max_waiting < 1:
            raise ValueError(
                f"Expected 1 <= max_running <= rows_per_step and max_waiting >= 1, so that every running sequence can "
                f"decode in each step; got {self}."
            )


class Scheduler(Generic[RequestT]):
    def __init__(self, limits: SchedulerLimits, pool: PagePool) -> None:
        self.limits = limits
        self.pool = pool
        self.running: list[Sequence[RequestT]] = []
        self.waiting: list[Sequence[RequestT]] = []
        self._next_number = 0

    def add(self, sequence: Sequence[RequestT]) -> None:
        """Raises ContextTooLong when it could never fit, AtCapacity when too many wait already."""
        if self.pool.pages_for(sequence.max_rows) > self.pool.page_count:
            capacity = self.pool.page_count * self.pool.page_size
            raise ContextTooLong(
                f"Expected at most {capacity} rows of prompt and answer; this request may need {sequence.max_rows}. "
                f"Shorten the prompt or lower the output limit."
            )
        if len(self.waiting) >= self.limits.max_waiting:
            raise AtCapacity(f"All {self.limits.max_waiting} places in the queue are taken. Try again soon.")
        sequence.number = self._next_number
        self._next_number += 1
        self.waiting.append(sequence)

    def schedule(self) -> list[Slice[RequestT]]:
        """The next step; empty when no sequence can be worked on."""
        plan: dict[int, Slice[RequestT]] = {}
        budget = self.limits.rows_per_step
        for sequence in [s for s in self.running if s.pending_rows == 1]:
            budget -= self._extend(sequence, budget, plan)
        for sequence in [s for s in self.running if s.pending_rows > 1]:
            budget -= self._extend(sequence, budget, plan)
        self._admit(budget, plan)
        return list(plan.values())

    def advance(self, done: Slice[RequestT], *, ended: bool) -> None:
        """Counts the rows of a slice that has run."""
        sequence = done.sequence
        if sequence.phase == "ended":
            return
        sequence.computed_rows = done.first_row + done.row_count
        sequence.sampled_rows += done.samples
        if ended:
            self.remove(sequence)

    def remove(self, sequence: Sequence[RequestT]) -> None:
        """Ends a sequence, wherever it is; its pages are free at once."""
        if sequence.phase == "running":
            self.running.remove(sequence)
            self.pool.give_back(sequence.pages)
        elif sequence.phase == "waiting":
            self.waiting.remove(sequence)
        sequence.phase = "ended"

    def _extend(self, sequence: Sequence[RequestT], budget: int, plan: dict[int, Slice[RequestT]]) -> int:
        raise NotImplementedError

    def _admit(self, budget: int, plan: dict[int, Slice[RequestT]]) -> None:
        raise NotImplementedError
