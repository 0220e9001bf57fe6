"""Whatever comes and goes: nobody reads another tenant's rows or stale ones, every page has as many holders as it
counts, and each answer is the one that its request gets alone."""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.sequence import ALL_ROWS, Sequence, Slice
from antiphon.errors import AtCapacity
from tests.engine.alike import Alike, alone, output, requests


@dataclass
class Simulation:
    scheduler: Scheduler[Alike]
    work: list[Alike]
    dice: random.Random
    live: list[Sequence[Alike]] = field(default_factory=list)
    finished: list[Alike] = field(default_factory=list)
    # (page, place) -> the value of the row that was written there last.
    store: dict[tuple[int, int], bytes] = field(default_factory=dict)
    computed_rows: int = 0

    def run(self) -> "Simulation":
        waiting, moment = sorted(self.work, key=lambda each: each.arrives), 0
        while waiting or self.live:
            while waiting and waiting[0].arrives <= moment:
                self.arrive(waiting.pop(0))
            for sequence in [each for each in self.live if each.request.cancelled_at == moment]:
                self.leave(sequence)
            plan = self.scheduler.schedule()
            self.check_holders()
            for part in plan:
                self.compute(part)
            self.outside_world()
            moment += 1
            assert moment < 20_000, "no end in sight"
        assert self.scheduler.pool.used_count == 0
        return self

    def arrive(self, request: Alike) -> None:
        sequence = request.sequence(self.scheduler.pool.page_size)
        try:
            self.scheduler.add(sequence)
        except AtCapacity:
            return
        self.live.append(sequence)

    def leave(self, sequence: Sequence[Alike]) -> None:
        self.scheduler.remove(sequence)
        assert sequence.pages == []
        self.live.remove(sequence)

    def compute(self, part: Slice[Alike]) -> None:
        """Every row reads all rows before it from the store, as attention does."""
        sequence, request, size = part.sequence, part.sequence.request, self.scheduler.pool.page_size
        stop = part.first_row + part.row_count
        assert part.first_row == sequence.computed_rows
        for row in range(stop):
            page = part.pages[row // size]
            if row >= part.first_row:
                assert self.scheduler.pool._holders[page] == 1, "a page is written while others hold it"
                self.store[page, row % size] = request.value(row)
            assert self.store[page, row % size] == request.value(row), (
                f"row {row} of {request} is not what it should be"
            )
        self.computed_rows += part.row_count
        if part.samples:
            row = stop - 1
            request.written.append(output(self.store[part.pages[row // size], row % size]))
            sequence.emitted += 1
        self.scheduler.advance(part)
        if len(request.written) == request.outputs:
            self.leave(sequence)
            self.finished.append(request)

    def check_holders(self) -> None:
        pool, running = self.scheduler.pool, self.scheduler.running
        holders = Counter(page for sequence in running for page in sequence.pages)
        assert [holders[page] for page in range(pool.page_count)] == pool._holders
        assert pool.used_count == len(holders)
        assert not any(sequence.pages for sequence in self.scheduler.waiting)
        assert not set(pool._kept) & set(holders)
        tenants: dict[int, Any] = {}
        for sequence in running:
            for page in sequence.pages:
                if holders[page] > 1:
                    assert sequence.request.tenant is not None
                    assert tenants.setdefault(page, sequence.request.tenant) == sequence.request.tenant

    def outside_world(self) -> None:
        for sequence in self.live:
            if self.dice.random() < 0.5 and sequence.available_rows != ALL_ROWS:
                rows = sequence.available_rows + self.dice.randint(1, 9)
                sequence.available_rows = rows if rows < sequence.prompt_rows else ALL_ROWS
            if self.dice.random() < 0.5:
                sequence.taken = min(sequence.emitted, sequence.taken + self.dice.randint(1, 3))


def simulated(
    work: list[Alike], page_size: int, spare_pages: int, dice: random.Random, *, max_running: int = 6, rows: int = 24
) -> Simulation:
    largest = max(len(each.prompt) + each.outputs - 1 for each in work)
    pool = PagePool(-(-largest // page_size) + spare_pages, page_size)
    return Simulation(Scheduler(SchedulerLimits(max_running, 16, rows), pool), work, dice).run()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(requests(), min_size=1, max_size=14),
    st.integers(1, 5),
    st.integers(0, 40),
    st.randoms(use_true_random=False),
    st.integers(1, 6),
    st.integers(6, 30),
)
def test_every_answer_is_the_one_that_its_request_gets_alone(
    work: list[Alike], page_size: int, spare_pages: int, dice: random.Random, max_running: int, rows: int
) -> None:
    found = simulated(work, page_size, spare_pages, dice, max_running=max_running, rows=rows)
    for request in found.finished:
        assert request.written == alone(request)
    pool = found.scheduler.pool
    assert sorted(pool.take(pool.page_count)) == list(range(pool.page_count)), "every page can be had again"


@settings(max_examples=60, deadline=None)
@given(st.lists(requests(), min_size=2, max_size=8), st.integers(1, 5), st.randoms(use_true_random=False))
def test_what_was_computed_and_what_was_spared_are_all_rows(
    work: list[Alike], page_size: int, dice: random.Random
) -> None:
    """With room for everybody nothing is computed twice but the beginnings of pages that others have whole."""
    for request in work:
        request.cancelled_at, request.held_rows = None, 0
    found = simulated(work, page_size, 1_000, dice, max_running=8)
    rows = sum(len(request.prompt) + request.outputs - 1 for request in found.finished)
    assert found.scheduler.preemptions == found.scheduler.pool.evicted_count == 0
    assert found.computed_rows + found.scheduler.cache.reused_rows == rows


@settings(max_examples=80, deadline=None)
@given(
    st.lists(requests(), min_size=2, max_size=10),
    st.integers(2, 6),
    st.integers(0, 8),
    st.randoms(use_true_random=False),
)
def test_who_was_let_in_again_keeps_his_pages_for_a_page_of_steps(
    work: list[Alike], page_size: int, spare_pages: int, dice: random.Random
) -> None:
    """Where all inputs are there and all readers keep up."""
    for request in work:
        request.cancelled_at, request.held_rows, request.max_untaken = None, 0, 1_000
    largest = max(len(each.prompt) + each.outputs - 1 for each in work)
    pool = PagePool(-(-largest // page_size) + spare_pages, page_size)
    scheduler = Watched(SchedulerLimits(6, 16, 24), pool)
    Simulation(scheduler, work, dice).run()


class Watched(Scheduler[Alike]):
    """Knows when a sequence that had lost its pages was let in again."""

    steps = 0

    def schedule(self) -> list[Slice[Alike]]:
        self.steps += 1
        return super().schedule()

    def _admit(self, sequence: Sequence[Alike]) -> None:
        if sequence.reached_rows > 0:
            self.let_in = {**getattr(self, "let_in", {}), sequence.number: self.steps}
        super()._admit(sequence)

    def _preempt(self, sequence: Sequence[Alike]) -> None:
        let_in = getattr(self, "let_in", {}).pop(sequence.number, None)
        assert let_in is None or self.steps - let_in >= self.pool.page_size, "it lost its pages again at once"
        super()._preempt(sequence)
