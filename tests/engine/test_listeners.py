"""Who is about to hear silence goes before those who have plenty to play; where nobody listens nothing changes."""

from dataclasses import dataclass, field

import pytest

from antiphon.engine.kv_cache import PagePool
from antiphon.engine.scheduler import Scheduler, SchedulerLimits
from antiphon.engine.sequence import Sequence

FRAME_SECONDS = 0.08


@dataclass(eq=False)
class Speech:
    """A sequence in simulated time, and when its frames came."""

    frames: int
    starts_at: float = 0.0
    listens: bool = True
    came_at: list[float] = field(default_factory=list)
    sequence: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        seconds = FRAME_SECONDS if self.listens else 0.0
        self.sequence = Sequence("speech", 4, 4 + self.frames - 1, output_seconds=seconds)

    def silent_seconds(self) -> float:
        """As a listener counts it who plays from the first frame on."""
        ends_at, silent = self.came_at[0], 0.0
        for moment in self.came_at:
            silent += max(moment - ends_at, 0.0)
            ends_at = max(ends_at, moment) + FRAME_SECONDS
        return silent


def talk(speeches: list[Speech], *, step_seconds: float, frame_seconds: float) -> float:
    """Until all have ended; returns when. A step takes longer the more frames it computes."""
    scheduler: Scheduler[str] = Scheduler(SchedulerLimits(64, 64, 64), PagePool(1000, 4))
    coming, now = sorted(speeches, key=lambda speech: speech.starts_at), 0.0
    while any(len(speech.came_at) < speech.frames for speech in speeches):
        while coming and coming[0].starts_at <= now:
            scheduler.add(coming.pop(0).sequence)
        for sequence in scheduler.running:
            sequence.lead_seconds = sequence.plays_until - now if sequence.output_seconds else 0.0
        plan = scheduler.schedule()
        now = now + step_seconds + frame_seconds * len(plan) if plan else coming[0].starts_at
        for part in plan:
            scheduler.advance(part)
            speech = next(each for each in speeches if each.sequence is part.sequence)
            if part.samples:
                speech.came_at.append(now)
                speech.sequence.emitted += 1
                speech.sequence.taken += 1
                speech.sequence.play(1, now)
            if len(speech.came_at) == speech.frames:
                scheduler.remove(speech.sequence)
    return now


def test_who_begins_among_many_who_are_ahead_hears_no_silence() -> None:
    crowd = [Speech(frames=400) for _ in range(10)]
    begin = [Speech(frames=40, starts_at=16.0) for _ in range(3)]
    talk([*crowd, *begin], step_seconds=0.002, frame_seconds=0.007)
    assert [speech.silent_seconds() for speech in begin] == [0.0] * 3
    assert begin[0].came_at[1] - begin[0].came_at[0] < 0.03, "a step of all would take 93 ms, more than a frame lasts"
    assert [speech.silent_seconds() for speech in crowd] == [0.0] * 10, "nor is it at their cost"


def test_those_ahead_go_on_as_soon_as_nobody_is_in_need() -> None:
    crowd, begins = [Speech(frames=300) for _ in range(10)], Speech(frames=100, starts_at=16.0)
    talk([*crowd, begins], step_seconds=0.002, frame_seconds=0.007)
    gaps = [after - before for before, after in zip(crowd[0].came_at, crowd[0].came_at[1:], strict=False)]
    assert max(gaps) < 0.5, "a quarter of a second of sound takes a few short steps"


def test_who_is_in_need_but_finds_no_page_keeps_nobody_else_from_going_on() -> None:
    """The newest gives its pages to nobody and gets none from older ones: they have to come to their end."""
    scheduler: Scheduler[str] = Scheduler(SchedulerLimits(8, 8, 16), PagePool(6, 4))
    ahead = [Sequence("ahead", 4, 16, output_seconds=FRAME_SECONDS) for _ in range(2)]
    in_need = Sequence("in need", 8, 12, output_seconds=FRAME_SECONDS)
    for sequence in (*ahead, in_need):
        scheduler.add(sequence)
    while scheduler.pool.free_count:
        for part in scheduler.schedule():
            scheduler.advance(part)
    for sequence in ahead:
        sequence.lead_seconds = 10.0
    in_need.lead_seconds = -1.0
    for _ in range(40):
        plan = scheduler.schedule()
        assert plan, "somebody moves"
        for part in plan:
            scheduler.advance(part)
            if part.sequence.total_rows > part.sequence.max_rows:
                scheduler.remove(part.sequence)
        if not scheduler.running and not scheduler.waiting:
            return
    raise AssertionError("all come to their end")


def test_of_text_nobody_is_ahead() -> None:
    texts = [Speech(frames=50, listens=False) for _ in range(4)]
    late = Speech(frames=50, starts_at=0.2, listens=False)
    talk([*texts, late], step_seconds=0.01, frame_seconds=0.001)
    assert all(text.came_at[-1] < 0.8 for text in texts)
    gaps = [after - before for before, after in zip(texts[0].came_at, texts[0].came_at[1:], strict=False)]
    assert max(gaps) < 0.016, "it is in every step"


def test_a_listener_who_heard_silence_plays_on_from_there() -> None:
    sequence = Sequence("speech", 4, 10, output_seconds=FRAME_SECONDS)
    for now in (1.0, 1.01, 3.0):
        sequence.play(1, now)
    assert sequence.plays_until == pytest.approx(3.08)
