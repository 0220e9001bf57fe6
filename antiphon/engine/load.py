"""How busy a decoder is, and what its pages were good for so far."""

from dataclasses import dataclass

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

    @classmethod
    def of(cls, scheduler: Scheduler[RequestT]) -> "Load":
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
        )
