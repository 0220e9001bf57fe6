"""Who of those that wait may begin: there is a place, there are pages, and room is left for other tenants. Bookkeeping
only.

Who waits for pages holds up those of its own tenant who came later. Others may pass it, until they have taken as many
pages as it waits for: no prompt is so long that it keeps the platform from all short ones, and none is passed for ever.
"""

from collections.abc import Sequence as Listed
from dataclasses import dataclass, field
from typing import Generic

from antiphon.engine.fairness import leaves_room
from antiphon.engine.kv_cache import PagePool
from antiphon.engine.prefix_cache import PrefixCache
from antiphon.engine.sequence import RequestT, Sequence


@dataclass(frozen=True, slots=True)
class WaitingLine(Generic[RequestT]):
    # Sequences that hold pages at one time.
    max_running: int
    pool: PagePool
    cache: PrefixCache
    # In order of arrival.
    running: list[Sequence[RequestT]] = field(default_factory=list)
    waiting: list[Sequence[RequestT]] = field(default_factory=list)

    def ready(self) -> list[Sequence[RequestT]]:
        """Those that can go on to an output come first; others may compute ahead with what is left."""
        if not self.waiting or not self.has_place:
            return []
        # One that lost its pages during a step is computed again from what that step gives.
        whole = [s for s in self.waiting if not s.steps_under_way]
        ready = [s for s in whole if s.can_sample]
        return ready + [s for s in whole if not s.can_sample and s.pending_rows > 0]

    @property
    def has_place(self) -> bool:
        return len(self.running) < self.max_running

    def leaves_room(self, sequence: Sequence[RequestT]) -> bool:
        """For other tenants: in the places of those who run, and in the pages."""
        own = [each for each in self.running if each.share.tenant == sequence.share.tenant]
        pages, used = sum(len(each.pages) for each in own), self.pool.page_count - self.pool.free_count
        return leaves_room(self.max_running, len(self.running), len(own), sequence.share) and leaves_room(
            self.pool.page_count, used, pages, sequence.share
        )

    def fits(self, sequence: Sequence[RequestT]) -> bool:
        pages = self.pool.pages_for(sequence.pending_rows)
        if sequence.reached_rows > 0:
            pages = max(pages, self._pages_to_grow(sequence)) + self._growth_of_running()
        return pages - self.cache.shared_pages(sequence) <= self.pool.free_count

    def may_pass(self, sequence: Sequence[RequestT], stuck: Listed[Sequence[RequestT]]) -> bool:
        """stuck: those before it that wait for pages."""
        pages = self.pool.pages_for(sequence.pending_rows)
        return all(
            each.share.tenant != sequence.share.tenant
            and each.passed_pages + pages <= self.pool.pages_for(each.pending_rows)
            for each in stuck
        )

    def passed(self, sequence: Sequence[RequestT], stuck: Listed[Sequence[RequestT]]) -> None:
        """It begins before them."""
        pages = self.pool.pages_for(sequence.pending_rows)
        sequence.passed_pages = 0
        for each in stuck:
            each.passed_pages += pages

    def _growth_of_running(self) -> int:
        """Pages that those who run take soon. Were one that has lost its pages let in without them, it would lose them
        again at once, and be computed for nothing. Where nobody moves, nobody grows."""
        if not any(sequence.pending_rows > 0 for sequence in self.running):
            return 0
        return sum(max(0, self._pages_to_grow(each) - len(each.pages)) for each in self.running)

    def _pages_to_grow(self, sequence: Sequence[RequestT]) -> int:
        """For all that it is now and a page more, or to its end."""
        return self.pool.pages_for(min(sequence.max_rows, sequence.total_rows + self.pool.page_size))
