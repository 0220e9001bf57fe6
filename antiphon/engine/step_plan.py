"""What one step computes, while it is being planned."""

from typing import Generic

from antiphon.engine.sequence import RequestT, Sequence, Slice


class StepPlan(Generic[RequestT]):
    """The slices of one step, at most one a sequence, and the rows that may still be added."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.slices: dict[int, Slice[RequestT]] = {}
        # It holds first outputs that are waited for, and little else.
        self.is_hurried = False
        # It is kept short for one whose next step may follow it.
        self.is_short = False
        # Those that would be in it if there were pages for them.
        self.stuck: dict[int, Sequence[RequestT]] = {}

    def rows_of(self, sequence: Sequence[RequestT]) -> int:
        planned = self.slices.get(sequence.number)
        return planned.row_count if planned else 0

    def add(self, sequence: Sequence[RequestT], row_count: int) -> None:
        """To those that it has in this plan already."""
        first, rows = sequence.computed_rows, self.rows_of(sequence) + row_count
        samples = first + rows == sequence.total_rows
        self.slices[sequence.number] = Slice(sequence, first, rows, samples, sequence.pages)
        self.budget -= row_count

    def drop(self, sequence: Sequence[RequestT]) -> None:
        dropped = self.slices.pop(sequence.number, None)
        self.budget += dropped.row_count if dropped else 0
