"""The scheduler's rules, one by one."""

import pytest

from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.sequence import ALL_ROWS, Sequence, Slice
from antiphon.errors import AtCapacity, ContextTooLong

Rows = list[tuple[str, int, int, bool]]


def scheduler(
    pages: int = 100, page_size: int = 4, max_running: int = 8, max_waiting: int = 8, rows_per_step: int = 16
) -> Scheduler[str]:
    return Scheduler(SchedulerLimits(max_running, max_waiting, rows_per_step), PagePool(pages, page_size))


def sequence(name: str, prompt_rows: int, outputs: int = 8, available_rows: int = ALL_ROWS) -> Sequence[str]:
    return Sequence(name, prompt_rows, prompt_rows + outputs - 1, available_rows)


def shape(plan: list[Slice[str]]) -> Rows:
    return [(part.sequence.request, part.first_row, part.row_count, part.samples) for part in plan]


def step(subject: Scheduler[str]) -> Rows:
    plan = subject.schedule()
    for part in plan:
        subject.advance(part)
    return shape(plan)


def test_a_long_prompt_runs_in_chunks_and_samples_at_its_last_row_only() -> None:
    subject = scheduler(rows_per_step=16)
    subject.add(sequence("a", 40))
    assert [step(subject) for _ in range(4)] == [
        [("a", 0, 16, False)],
        [("a", 16, 16, False)],
        [("a", 32, 8, True)],
        [("a", 40, 1, True)],
    ]


def test_decodes_come_first_and_share_the_step_with_a_prompt() -> None:
    subject = scheduler(rows_per_step=16)
    subject.add(sequence("a", 4))
    step(subject)
    subject.add(sequence("b", 40))
    assert step(subject) == [("a", 4, 1, True), ("b", 0, 15, False)]


def test_prompts_are_computed_in_order_of_arrival() -> None:
    subject = scheduler(rows_per_step=16)
    for name in "abc":
        subject.add(sequence(name, 10))
    assert step(subject) == [("a", 0, 10, True), ("b", 0, 6, False)]
    assert step(subject) == [("a", 10, 1, True), ("b", 6, 4, True), ("c", 0, 10, True)]


def test_short_prompts_do_not_wait_until_a_long_one_has_been_read() -> None:
    subject = scheduler(rows_per_step=32)
    subject.add(sequence("long", 200))
    assert step(subject) == [("long", 0, 32, False)]
    for name in "ab":
        subject.add(sequence(name, 4))
    assert step(subject) == [("long", 32, 24, False), ("a", 0, 4, True), ("b", 0, 4, True)]
    assert step(subject) == [("a", 4, 1, True), ("b", 4, 1, True), ("long", 56, 30, False)]


def test_the_shortest_of_those_behind_a_long_prompt_comes_first() -> None:
    subject = scheduler(rows_per_step=16)
    for name, rows in (("long", 100), ("longer", 200), ("short", 3)):
        subject.add(sequence(name, rows))
    assert step(subject) == [("long", 0, 13, False), ("short", 0, 3, True)]


def test_nobody_passes_one_that_waits_for_pages() -> None:
    subject = scheduler(pages=12, page_size=4, rows_per_step=16)
    subject.add(sequence("long", 40, outputs=1))
    step(subject)
    subject.add(sequence("waits", 28, outputs=1))
    subject.add(sequence("short", 4, outputs=1))
    assert [name for name, *_ in step(subject)] == ["long"]


def test_no_more_than_max_running_hold_pages() -> None:
    subject = scheduler(max_running=2)
    for name in "abc":
        subject.add(sequence(name, 4))
    assert [name for name, *_ in step(subject)] == ["a", "b"]
    subject.remove(subject.running[0])
    assert [name for name, *_ in step(subject)] == ["b", "c"]


def test_a_full_queue_refuses() -> None:
    subject = scheduler(max_waiting=1)
    subject.add(sequence("a", 4))
    with pytest.raises(AtCapacity):
        subject.add(sequence("b", 4))


def test_what_can_never_fit_is_refused() -> None:
    with pytest.raises(ContextTooLong, match="at most 8 rows"):
        scheduler(pages=2).add(sequence("a", 4, outputs=6))


def test_a_sequence_without_input_waits_and_delays_nobody() -> None:
    subject = scheduler()
    held = sequence("held", 10, available_rows=0)
    subject.add(held)
    subject.add(sequence("b", 4))
    assert step(subject) == [("b", 0, 4, True)]
    held.available_rows = 6
    assert step(subject) == [("b", 4, 1, True), ("held", 0, 6, False)]
    assert step(subject) == [("b", 5, 1, True)]
    held.available_rows = 10
    assert step(subject) == [("b", 6, 1, True), ("held", 6, 4, True)]


def test_a_sequence_waits_for_the_input_of_its_next_row() -> None:
    subject = scheduler()
    talking = sequence("a", 4, available_rows=4)
    subject.add(talking)
    assert step(subject) == [("a", 0, 4, True)]
    assert step(subject) == []
    talking.available_rows = 5
    assert step(subject) == [("a", 4, 1, True)]


def test_a_sequence_whose_reader_is_behind_pauses() -> None:
    subject = scheduler()
    slow = sequence("a", 4)
    slow.max_untaken, slow.emitted = 2, 2
    subject.add(slow)
    assert step(subject) == []
    slow.taken = 1
    assert step(subject) == [("a", 0, 4, True)]


def test_the_newest_is_preempted_and_computed_again_later() -> None:
    subject = scheduler(pages=4, page_size=2)
    old, new = sequence("old", 4, outputs=5), sequence("new", 4, outputs=5)
    subject.add(old)
    subject.add(new)
    assert step(subject) == [("old", 0, 4, True), ("new", 0, 4, True)]
    assert step(subject) == [("old", 4, 1, True)]
    assert (new.phase, new.pages, new.computed_rows, new.sampled_rows) == ("waiting", [], 0, 1)
    step(subject)
    subject.remove(old)
    assert step(subject) == [("new", 0, 5, True)]


def test_a_preempted_sequence_leaves_the_step_it_was_planned_for() -> None:
    subject = scheduler(pages=4, page_size=2)
    old, new = sequence("old", 8, outputs=1, available_rows=4), sequence("new", 3, outputs=2)
    subject.add(old)
    subject.add(new)
    assert sorted(step(subject)) == [("new", 0, 3, True), ("old", 0, 4, False)]
    old.available_rows = ALL_ROWS
    assert step(subject) == [("old", 4, 4, True)]
    assert new.phase == "waiting"


def test_an_idle_sequence_gives_its_pages_up_only_when_nobody_else_can_move() -> None:
    subject = scheduler(pages=4, page_size=2)
    idle, other = sequence("idle", 6, outputs=2, available_rows=5), sequence("other", 4, outputs=3)
    subject.add(idle)
    assert step(subject) == [("idle", 0, 5, False)]
    subject.add(other)
    assert step(subject) == [("other", 0, 4, True)]
    assert idle.phase == "waiting"
    idle.available_rows = ALL_ROWS
    assert step(subject) == [("other", 4, 1, True)]  # idle does not fit beside it
    subject.remove(other)
    assert step(subject) == [("idle", 0, 6, True)]


def test_idle_sequences_do_not_keep_others_from_running() -> None:
    subject = scheduler(max_running=1)
    idle = sequence("idle", 6, available_rows=5)
    subject.add(idle)
    step(subject)
    subject.add(sequence("other", 4))
    assert step(subject) == [("other", 0, 4, True)]
    assert [s.request for s in subject.waiting] == ["idle"]
    assert step(subject) == [("other", 4, 1, True)]


@pytest.mark.parametrize("limits", [(0, 1, 1), (2, 1, 1), (1, 0, 1)])
def test_limits_that_cannot_work_are_refused(limits: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="max_running"):
        SchedulerLimits(*limits)


def test_removing_frees_at_once_wherever_the_sequence_is() -> None:
    subject = scheduler()
    running, waiting = sequence("a", 4), sequence("b", 4)
    subject.add(running)
    step(subject)
    subject.add(waiting)
    for each in (running, waiting, running):
        subject.remove(each)
    assert subject.pool.used_count == 0
    assert not subject.running
    assert not subject.waiting
    assert step(subject) == []


def test_one_that_needs_its_last_output_sits_out_while_it_is_on_its_way_and_delays_nobody() -> None:
    subject = scheduler(rows_per_step=16)
    subject.add(Sequence("bound", 4, 11, awaits_outputs=True))
    subject.add(sequence("free", 4))
    first = subject.schedule()
    for part in first:
        subject.begin(part)
    second = subject.schedule()
    assert shape(first) == [("bound", 0, 4, True), ("free", 0, 4, True)]
    assert shape(second) == [("free", 4, 1, True)]
    for part in first:
        subject.end(part)
    assert ("bound", 4, 1, True) in shape(subject.schedule())
