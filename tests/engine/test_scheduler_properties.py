"""What must hold for every workload: no page is leaked or shared, the budget is kept, everybody gets to the end."""

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.sequence import ALL_ROWS, Sequence, Share, Slice
from antiphon.errors import AtCapacity


@dataclass
class Load:
    """A request of the simulation. held_rows: the input of the last so many rows comes late; stalled: never."""

    prompt_rows: int
    outputs: int
    arrives: int
    held_rows: int
    stalled: bool
    max_untaken: int
    cancelled_at: int | None
    share: Share
    given: int = 0


loads = st.builds(
    Load,
    prompt_rows=st.integers(1, 40),
    outputs=st.integers(1, 20),
    arrives=st.integers(0, 30),
    held_rows=st.integers(0, 12),
    stalled=st.booleans(),
    max_untaken=st.integers(1, 4),
    cancelled_at=st.none() | st.integers(0, 40),
    share=st.builds(Share, st.sampled_from(["", "first", "second"]), st.sampled_from([0.5, 1.0, 3.0]), st.booleans()),
)


@dataclass
class Simulation:
    """Plays inputs, readers, cancellations and the store's content against a scheduler, checking every step."""

    scheduler: Scheduler[Load]
    loads: list[Load]
    dice: random.Random
    live: dict[int, Sequence[Load]] = field(default_factory=dict)
    # (page, place) -> (sequence number, row): the last row written there.
    store: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def run(self) -> None:
        waiting, moment, still = sorted(self.loads, key=lambda load: load.arrives), 0, 0
        while waiting or any(not sequence.request.stalled for sequence in self.live.values()):
            while waiting and waiting[0].arrives <= moment:
                self.arrive(waiting.pop(0))
            self.cancel(moment)
            plan = self.scheduler.schedule()
            self.check(plan)
            for part in plan:
                self.compute(part)
            still = 0 if plan else still + 1
            assert still < 400, f"nobody moves: {self.live}"
            self.outside_world()
            moment += 1
            assert moment < 20_000, "no end in sight"
        for sequence in self.live.values():
            self.scheduler.remove(sequence)
        assert self.scheduler.pool.used_count == 0
        assert not self.scheduler.running
        assert not self.scheduler.waiting

    def arrive(self, load: Load) -> None:
        last = load.prompt_rows + load.outputs - 1
        available = max(0, load.prompt_rows - load.held_rows) if load.held_rows else ALL_ROWS
        sequence = Sequence(load, load.prompt_rows, last, available, load.max_untaken, share=load.share)
        try:
            self.scheduler.add(sequence)
        except AtCapacity:
            return
        self.live[id(sequence)] = sequence

    def cancel(self, moment: int) -> None:
        for key, sequence in list(self.live.items()):
            if sequence.request.cancelled_at == moment:
                self.scheduler.remove(sequence)
                assert sequence.pages == []
                del self.live[key]

    def compute(self, part: Slice[Load]) -> None:
        sequence, load = part.sequence, part.sequence.request
        assert part.first_row == sequence.computed_rows, "rows are computed in order, without a gap"
        assert part.first_row + part.row_count <= min(sequence.available_rows, sequence.total_rows)
        assert part.samples == (part.first_row + part.row_count == sequence.total_rows)
        for row in range(part.first_row, part.first_row + part.row_count):
            self.store[self.place(sequence, row)] = (sequence.number, row)
        self.scheduler.advance(part)
        if part.samples:
            rows = range(sequence.computed_rows)
            assert all(self.store[self.place(sequence, row)] == (sequence.number, row) for row in rows)
            load.given += 1
            sequence.emitted += 1
            if load.given == load.outputs:
                self.scheduler.remove(sequence)
                del self.live[id(sequence)]

    def place(self, sequence: Sequence[Load], row: int) -> tuple[int, int]:
        size = self.scheduler.pool.page_size
        return sequence.pages[row // size], row % size

    def check(self, plan: list[Slice[Load]]) -> None:
        scheduler, pool = self.scheduler, self.scheduler.pool
        held = [page for sequence in scheduler.running for page in sequence.pages]
        assert len(held) == len(set(held)) == pool.used_count
        assert all(not sequence.pages for sequence in scheduler.waiting)
        assert len(scheduler.running) <= scheduler.limits.max_running
        assert sum(part.row_count for part in plan) <= scheduler.limits.rows_per_step
        assert len({part.sequence.number for part in plan}) == len(plan)
        for part in plan:
            assert part.row_count > 0
            assert part.sequence.phase == "running"
            assert len(part.sequence.pages) >= pool.pages_for(part.first_row + part.row_count)

    def outside_world(self) -> None:
        for sequence in self.live.values():
            if sequence.request.stalled:
                continue
            if self.dice.random() < 0.5 and sequence.available_rows != ALL_ROWS:
                rows = sequence.available_rows + self.dice.randint(1, 3)
                sequence.available_rows = rows if rows < sequence.max_rows else ALL_ROWS
            if self.dice.random() < 0.5:
                sequence.taken = min(sequence.emitted, sequence.taken + self.dice.randint(1, 3))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(loads, min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(0, 30),
    st.integers(1, 6),
    st.integers(0, 20),
    st.none() | st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_every_workload_ends_with_all_pages_free(
    work: list[Load],
    page_size: int,
    spare_pages: int,
    max_running: int,
    spare_rows: int,
    shared_step_sequences: int | None,
    dice: random.Random,
) -> None:
    largest = max(load.prompt_rows + load.outputs - 1 for load in work)
    pool = PagePool(-(-largest // page_size) + spare_pages, page_size)
    rows = max_running + spare_rows
    limits = SchedulerLimits(max_running, 8, rows, shared_step_sequences)
    Simulation(Scheduler(limits, pool), work, dice).run()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 50), st.integers(1, 8), st.data())
def test_pages_come_back_whatever_the_order(page_count: int, page_size: int, data: st.DataObject) -> None:
    pool = PagePool(page_count, page_size)
    held: list[list[int]] = [[] for _ in range(4)]
    for _ in range(30):
        owner = data.draw(st.sampled_from(held))
        if data.draw(st.booleans()):
            owner += pool.take(data.draw(st.integers(0, pool.free_count)))
        else:
            pool.give_back(owner)
            owner.clear()
        everything = [page for pages in held for page in pages]
        assert len(everything) == len(set(everything)) == pool.used_count
