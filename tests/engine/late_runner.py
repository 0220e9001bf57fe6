"""A runner whose device is slow: what a step gives is not known before it is asked for, and steps begin before that."""

from collections.abc import Callable
from functools import partial

from antiphon.engine.runner import Outcome
from antiphon.engine.sequence import Slice
from tests.engine.counting_runner import Counting, CountingRunner

Slices = list[Slice[Counting]]


class LateRunner(CountingRunner):
    """stops: requests end with "stop", which nobody can know before; else with "length"."""

    def __init__(self, page_size: int = 4, *, stops: bool = True) -> None:
        super().__init__(page_size)
        self._reason = "stop" if stops else "length"
        # What happened, by the number of the step: ("begun", 1), ("read", 1), ...
        self.events: list[tuple[str, int]] = []
        self.fails_to_begin_at: int | None = None
        # Outputs under way, by request.
        self._under_way: dict[Counting, int] = {}
        self.rows: dict[Counting, list[int]] = {}

    def launch(self, slices: Slices) -> Callable[[], list[Outcome[int]]]:
        self.steps += 1
        if self.steps == self.fails_to_begin_at:
            raise RuntimeError("no memory is left")
        self.events.append(("begun", self.steps))
        self.step_began.set()
        for part in slices:
            self._begin(part)
        return partial(self._read, self.steps, slices)

    def _begin(self, part: Slice[Counting]) -> None:
        request = part.sequence.request
        assert request.released == 0, "a released request is never run again"
        assert len(part.pages) * self._page_size >= part.first_row + part.row_count
        if part.row_count > 1:
            assert not self._under_way.get(request), "what is computed again is known"
        self.rows.setdefault(request, []).extend(range(part.first_row, part.first_row + part.row_count))
        self._under_way[request] = self._under_way.get(request, 0) + part.samples

    def _read(self, number: int, slices: Slices) -> list[Outcome[int]]:
        assert self._may_end.wait(10)
        self.events.append(("read", number))
        return [self._given(part) for part in slices]

    def _given(self, part: Slice[Counting]) -> Outcome[int]:
        request = part.sequence.request
        assert request.released == 0, "it is not released before its last step is over"
        self._under_way[request] -= part.samples
        if part.sequence.phase == "ended" or not part.samples:
            return Outcome()
        request.given += 1
        return Outcome((request.given - 1,), self._reason if request.given == request.outputs else None)  # type: ignore[arg-type]
