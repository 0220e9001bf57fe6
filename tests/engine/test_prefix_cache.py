"""The rules of sharing pages, one by one."""

from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.sequence import Sequence
from tests.engine.alike import Alike

TEXT = list(range(1, 51))


def scheduler(pages: int = 100, page_size: int = 4, max_running: int = 8) -> Scheduler[Alike]:
    return Scheduler(SchedulerLimits(max_running, 8, rows_per_step=64), PagePool(pages, page_size))


def joined(
    subject: Scheduler[Alike], prompt: list[int], tenant: int | None = 0, outputs: int = 4, held_rows: int = 0
) -> Sequence[Alike]:
    sequence = Alike(tenant, prompt, outputs, held_rows=held_rows).sequence(subject.pool.page_size)
    subject.add(sequence)
    return sequence


def step(subject: Scheduler[Alike]) -> list[tuple[int, int]]:
    """(first row, rows) of each slice."""
    plan = subject.schedule()
    for part in plan:
        if part.samples:
            part.sequence.request.written.append(7)
        subject.advance(part)
    return [(part.first_row, part.row_count) for part in plan]


def test_a_prompt_that_begins_alike_takes_whole_pages_over_and_computes_the_rest() -> None:
    subject = scheduler()
    first = joined(subject, TEXT[:18])
    assert step(subject) == [(0, 18)]
    second = joined(subject, [*TEXT[:10], 99, 98])
    assert step(subject) == [(18, 1), (8, 4)]
    assert second.pages[:2] == first.pages[:2]
    assert second.pages[2] != first.pages[2]
    assert (second.cached_rows, subject.cache.reused_rows) == (8, 8)


def test_pages_outlive_their_sequence_and_count_as_free() -> None:
    subject = scheduler()
    first = joined(subject, TEXT[:12])
    step(subject)
    pages = first.pages
    subject.remove(first)
    assert (subject.pool.used_count, subject.pool.kept_count) == (0, 3)
    second = joined(subject, TEXT[:13])
    assert step(subject) == [(12, 1)]
    assert second.pages[:3] == pages
    assert subject.pool.kept_count == 0


def test_the_last_row_is_always_computed() -> None:
    """An output is sampled from it."""
    subject = scheduler()
    subject.remove(_computed(subject, joined(subject, TEXT[:12])))
    again = joined(subject, TEXT[:12])
    assert step(subject) == [(8, 4)]
    assert again.sampled_rows == 1


def test_what_was_written_is_shared_with_the_next_turn() -> None:
    subject = scheduler()
    first = joined(subject, TEXT[:6], outputs=8)
    while first.sampled_rows < 8:
        step(subject)
    subject.remove(first)
    joined(subject, [*TEXT[:6], *first.request.written, 50, 51])
    assert step(subject) == [(12, 4)]  # 6 + 7 rows were computed: three whole pages


def test_tenants_share_nothing_and_those_without_a_salt_not_even_with_each_other() -> None:
    subject = scheduler()
    tenants: list[int | None] = [1, 2, None, None]
    for tenant in tenants:
        sequence = joined(subject, TEXT[:20], tenant)
        assert step(subject)[-1] == (0, 20)
        subject.remove(sequence)
    joined(subject, TEXT[:20], tenant=2)
    assert step(subject) == [(16, 4)]


def test_media_that_come_late_find_the_pages_behind_them() -> None:
    """Its own beginning of a page makes way for the whole one."""
    subject = scheduler()
    subject.remove(_computed(subject, joined(subject, TEXT[:30])))
    late = joined(subject, TEXT[:30], held_rows=25)
    assert step(subject) == [(4, 1)]
    own_pages = late.pages
    late.available_rows = 17
    assert step(subject) == [(16, 1)]
    assert late.pages[1] != own_pages[1]
    assert len(own_pages) == 2, "a step may be reading the list that it was given"
    late.available_rows = 30
    assert step(subject) == [(28, 2)]
    assert late.cached_rows == 4 + 11 + 11
    subject.remove(late)
    assert subject.pool.used_count == 0


def test_who_takes_pages_over_midway_holds_all_of_his_once_and_nothing_else() -> None:
    subject = scheduler()
    subject.remove(_computed(subject, joined(subject, TEXT[:30])))
    late = joined(subject, TEXT[:30], held_rows=17)
    for available in (13, 21, 30):
        late.available_rows = available
        step(subject)
        assert [page for page in range(subject.pool.page_count) if subject.pool.is_held(page)] == sorted(late.pages)
        assert subject.pool.used_count == len(late.pages)
    subject.remove(late)
    assert subject.pool.used_count == 0
    taken = subject.pool.take(subject.pool.page_count)
    assert sorted(taken) == list(range(subject.pool.page_count)), "every page can be had again, once"


def test_pages_are_evicted_before_anybody_is_preempted_and_prompts_from_their_ends() -> None:
    subject = scheduler(pages=8)
    subject.remove(_computed(subject, joined(subject, TEXT[:24])))
    assert subject.pool.kept_count == 6
    other = joined(subject, [60] * 16)
    assert step(subject) == [(0, 16)]
    assert (subject.pool.evicted_count, subject.preemptions) == (2, 0)
    subject.remove(other)
    joined(subject, TEXT[:24])
    assert step(subject) == [(16, 8)], "its beginning is there, its end was evicted"


def test_pages_in_use_longest_ago_are_evicted_first() -> None:
    subject = scheduler(pages=8)
    for start in (10, 20, 10):
        subject.remove(_computed(subject, joined(subject, [start] * 13)))
    subject.remove(_computed(subject, joined(subject, [30] * 16)))
    joined(subject, [10] * 13)
    assert step(subject) == [(12, 1)]


def test_a_sequence_that_lost_its_pages_finds_what_is_left_of_them_and_is_not_told_they_were_cached() -> None:
    subject = scheduler(pages=6, page_size=4)
    old, new = joined(subject, TEXT[:8], outputs=12), joined(subject, [60] * 13, outputs=4)
    assert step(subject) == [(0, 8), (0, 13)]
    assert step(subject) == [(8, 1)]
    assert (new.phase, subject.preemptions) == ("waiting", 1)
    subject.remove(old)
    assert step(subject) == [(12, 2)]
    assert (new.cached_rows, subject.cache.reused_rows) == (0, 12)


def test_shared_pages_need_no_room_of_their_own() -> None:
    subject = scheduler(pages=6)
    first = joined(subject, TEXT[:16], outputs=4)
    step(subject)
    second = joined(subject, [*TEXT[:16], 50], outputs=3)
    step(subject)
    assert [first.phase, second.phase] == ["running", "running"]
    assert subject.pool.used_count == 6


def test_one_that_mostly_is_there_already_counts_as_short() -> None:
    """Of two that wait behind a long prompt, the long conversation with a short question comes first."""
    subject = Scheduler[Alike](SchedulerLimits(8, 8, rows_per_step=16), PagePool(100, 4))
    known = joined(subject, TEXT[:40])
    while known.sampled_rows == 0:
        step(subject)
    subject.remove(known)
    joined(subject, [70] * 100)
    joined(subject, [80] * 10)
    turn = joined(subject, [*TEXT[:40], 50, 51])
    assert step(subject) == [(0, 12), (40, 2), (0, 2)]
    assert turn.sampled_rows == 1


def test_who_lost_his_pages_waits_until_those_beside_him_can_grow() -> None:
    """Let in as soon as he fits, he would be thrown out at the next page that the oldest needs."""
    subject = scheduler(pages=8, page_size=4)
    oldest, short = (joined(subject, TEXT[:8], None, outputs=20) for _ in range(2))
    newest = joined(subject, [60] * 16, None, outputs=8)
    while oldest.computed_rows < 11:
        step(subject)
    assert (newest.phase, subject.preemptions) == ("waiting", 1)
    subject.remove(short)
    assert subject.pool.free_count == subject.pool.pages_for(newest.total_rows)
    assert step(subject) == [(11, 1)]
    while oldest.sampled_rows < 20:
        step(subject)
    subject.remove(oldest)
    step(subject)
    assert (newest.computed_rows > 16, subject.preemptions) == (True, 1)


def _computed(subject: Scheduler[Alike], sequence: Sequence[Alike]) -> Sequence[Alike]:
    while sequence.sampled_rows == 0:
        step(subject)
    return sequence
