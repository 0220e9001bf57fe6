"""How busy a decoder is, and what its pages were good for so far."""

import time
from dataclasses import dataclass, field

from antiphon.engine.pulse import Pace, Pulse
from antiphon.engine.scheduler import Scheduler
from antiphon.engine.sequence import RequestT


@dataclass(frozen=True, slots=True)
class Load:
    running: int
    waiting: int
    pages_used: int
    page_count: int
    # Pages that nobody holds, but that are shared again if what they hold comes back.
    pages_kept: int = 0
    # So far: rows taken over instead of computed, kept pages given up, and sequences that lost their pages.
    rows_reused: int = 0
    pages_evicted: int = 0
    preemptions: int = 0
    # Rows of prompts that could be computed and are not.
    waiting_rows: int = 0
    pace: Pace = field(default_factory=Pace)

    @classmethod
    def of(cls, scheduler: Scheduler[RequestT], pulse: Pulse) -> "Load":
        pool = scheduler.pool
        return cls(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            pages_used=pool.used_count,
            page_count=pool.page_count,
            pages_kept=pool.kept_count,
            rows_reused=scheduler.cache.reused_rows,
            pages_evicted=pool.evicted_count,
            preemptions=scheduler.preemptions,
            waiting_rows=_waiting_rows(scheduler),
            pace=pulse.pace(scheduler.running, time.perf_counter()),
        )


def _waiting_rows(scheduler: Scheduler[RequestT]) -> int:
    """Who goes on by one row does not wait."""
    pending = [sequence.pending_rows for sequence in scheduler.running]
    reusable = [sequence.reusable_pages * scheduler.pool.page_size for sequence in scheduler.waiting]
    waiting = [sequence.pending_rows - rows for sequence, rows in zip(scheduler.waiting, reusable, strict=True)]
    return sum(rows for rows in pending if rows > 1) + sum(rows for rows in waiting if rows > 0)
