"""Whose turn it is: steps are shared between tenants, however many requests each of them sends.

Every tenant has a counter of what was computed for it, divided by its weight; the least served goes first (virtual
token counters: Sheng et al., "Fairness in Serving Large Language Models", arXiv 2401.00588). Who comes back after a
while starts level with the least served of those who stayed, so that nobody saves service up. Bookkeeping only.
"""

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from antiphon.engine.sequence import RequestT, Sequence, Share

# What an output costs beside a row of a prompt, as in the paper's experiments.
OUTPUT_COST: Final = 2.0
# Tenants that are away and still above the others; the least of them are forgotten first.
_MOST_AWAY: Final = 4096

ItemT = TypeVar("ItemT")


class Presence:
    """How many sequences each tenant has here, waiting or running."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._weights: dict[str, float] = {}
        self._weight = 0.0

    def __len__(self) -> int:
        return len(self._counts)

    def __contains__(self, tenant: str) -> bool:
        return tenant in self._counts

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def arrive(self, share: Share) -> None:
        if share.tenant not in self._counts:
            self._weights[share.tenant] = share.weight
            self._weight += share.weight
        self._counts[share.tenant] += 1

    def depart(self, share: Share) -> None:
        self._counts[share.tenant] -= 1
        if not self._counts[share.tenant]:
            del self._counts[share.tenant]
            self._weight -= self._weights.pop(share.tenant)

    def is_outnumbered(self, share: Share) -> bool:
        """Of the sequences here, the tenant has at most half of its part: it is not who makes others wait. One that is
        about to come counts as here."""
        newcomers = int(share.tenant not in self)
        if len(self) + newcomers < 2 or share.is_batch:
            return False
        own, weight = self._counts[share.tenant] + newcomers, self._weights.get(share.tenant, share.weight)
        part = weight / (self._weight + newcomers * weight)
        return own <= part * (self._counts.total() + newcomers) / 2


class VirtualCounters:
    """Of the tenants that have a sequence here."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}
        self.present = Presence()
        self._batch_count = 0
        # Where a newcomer starts: the least served of those present, or of those who were here last.
        self._floor = 0.0

    @property
    def has_several(self) -> bool:
        """Tenants, or classes of urgency: there are turns to be taken."""
        return len(self.present) > 1 or self._batch_count > 0

    def served(self, tenant: str) -> float:
        """Rows and outputs so far, weighted."""
        return self._served.get(tenant, self._floor)

    def arrive(self, share: Share) -> None:
        if share.tenant not in self.present:
            self._served[share.tenant] = max(self.served(share.tenant), self._least())
        self.present.arrive(share)
        self._batch_count += share.is_batch

    def depart(self, share: Share) -> None:
        self._floor = self._least()
        self.present.depart(share)
        self._batch_count -= share.is_batch
        if share.tenant not in self.present:
            self._forget()

    def charge(self, share: Share, cost: float) -> None:
        self._served[share.tenant] = self.served(share.tenant) + cost / share.weight

    def _least(self) -> float:
        return min((self._served[tenant] for tenant in self.present), default=self._floor)

    def _forget(self) -> None:
        """Those who would start level anyhow, and beyond the bound those who are least above it."""
        away = [tenant for tenant in self._served if tenant not in self.present]
        gone = [tenant for tenant in away if self._served[tenant] <= self._floor]
        above = sorted(set(away).difference(gone), key=self.served)
        for tenant in [*gone, *above[: max(0, len(above) - _MOST_AWAY)]]:
            del self._served[tenant]


class VirtualStarts:
    """When a tenant's next job would begin on a machine that serves all tenants at once (start-time fair queueing:
    Goyal et al., 1996): jobs in this order share a worker by weight, with no counter to be kept per job."""

    def __init__(self) -> None:
        self._now = 0.0
        # Where a tenant's jobs so far would end; forgotten once that is past.
        self._ends: dict[str, float] = {}

    def next(self, share: Share, cost: float) -> float:
        start = max(self._now, self._ends.get(share.tenant, 0.0))
        self._ends[share.tenant] = start + cost / share.weight
        return start

    def begin(self, start: float) -> None:
        """The job that was given this start is computed now."""
        if start > self._now:
            self._now = start
            self._ends = {tenant: end for tenant, end in self._ends.items() if end > start}


def in_turn(
    sequences: Iterable[Sequence[RequestT]], cost: Callable[[Sequence[RequestT]], float], counters: VirtualCounters
) -> list[Sequence[RequestT]]:
    """The order in which to serve them, each counted as served when its turn has come: interactive ones first, of these
    the least served tenant's, and of a tenant in the order given."""
    if not counters.has_several:
        return list(sequences)
    interactive, batch = _parted(sequences, lambda each: not each.share.is_batch)
    return _in_turn(interactive, cost, counters) + _in_turn(batch, cost, counters)


def _in_turn(
    sequences: list[Sequence[RequestT]], cost: Callable[[Sequence[RequestT]], float], counters: VirtualCounters
) -> list[Sequence[RequestT]]:
    queues: dict[str, deque[Sequence[RequestT]]] = {}
    for sequence in sequences:
        queues.setdefault(sequence.share.tenant, deque()).append(sequence)
    if len(queues) < 2:
        return sequences
    # Who is level with others but wants less goes first: a newcomer before the crowd.
    turns = [(counters.served(tenant), len(queue), tenant) for tenant, queue in queues.items()]
    heapq.heapify(turns)
    ordered: list[Sequence[RequestT]] = []
    while turns:
        served, _, tenant = heapq.heappop(turns)
        sequence = queues[tenant].popleft()
        ordered.append(sequence)
        if queues[tenant]:
            heapq.heappush(turns, (served + cost(sequence) / sequence.share.weight, len(queues[tenant]), tenant))
    return ordered


def rows_to_share(wanted: list[Sequence[RequestT]], cost: Callable[[Sequence[RequestT]], float], budget: int) -> int:
    """Of prompts in one step, when several tenants want it: as many again as the one whose turn it is needs, so that
    its step does not last as long as a full one. At least a quarter of the budget."""
    first = wanted[0].share.tenant if wanted else ""
    own = sum(int(cost(each)) for each in wanted if each.share.tenant == first)
    return budget if all(each.share.tenant == first for each in wanted) else max(2 * own, budget // 4)


def newest_of_those_above(
    running: list[Sequence[RequestT]], page_count: int, counters: VirtualCounters
) -> Sequence[RequestT]:
    """Who gives pages back when there are none: the newest of a tenant that holds more than its share of them, without
    one the newest of all. Never the oldest of several, which therefore ends, and after it the next."""
    if len(running) < 2 or not counters.has_several:
        return running[-1]
    held, weights = Counter[str](), dict[str, float]()
    for each in running:
        held[each.share.tenant] += len(each.pages)
        weights[each.share.tenant] = each.share.weight
    page_share = page_count / math.fsum(weights.values())
    above = {tenant for tenant, pages in held.items() if pages > page_share * weights[tenant]}
    of_batch = (each for each in reversed(running[1:]) if each.share.is_batch)
    of_those_above = (each for each in reversed(running[1:]) if each.share.tenant in above)
    return next(of_batch, None) or next(of_those_above, running[-1])


def leaves_room(places: int, taken: int, own: int, share: Share) -> bool:
    """Whether one more may be taken of `places`: the last eighth is for tenants that have less than that. Who names no
    tenant is alone."""
    kept = places // 8 if share.tenant else 0
    return taken < places - kept or (taken < places and own < kept)


def _parted(items: Iterable[ItemT], is_first: Callable[[ItemT], bool]) -> tuple[list[ItemT], list[ItemT]]:
    first: list[ItemT] = []
    second: list[ItemT] = []
    for item in items:
        (first if is_first(item) else second).append(item)
    return first, second
