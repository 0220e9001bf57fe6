"""The limiter of one process, for tests and for a platform that is one process."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from antiphon.tenancy import bucket
from antiphon.tenancy.caller import TenantLimits
from antiphon.tenancy.limiter import (
    Amounts,
    Budget,
    Demand,
    Place,
    Reservation,
    Standing,
    limits_of,
    places_of,
    prefix_of,
    reservation_id,
)
from antiphon.tenancy.refusals import budget_spent, places_taken


@dataclass(slots=True)
class _Bucket:
    level: int
    at_ms: int

    def fill(self, limit: int, now_ms: int) -> None:
        self.level, self.at_ms = bucket.filled(self.level, limit, now_ms - self.at_ms), now_ms


@dataclass(slots=True)
class _Tenant:
    buckets: dict[Budget, _Bucket] = field(default_factory=dict)
    # reservation -> until when its lease holds, by the kind of place
    places: dict[Place, dict[str, int]] = field(default_factory=lambda: {"turn": {}, "session": {}})


class MemoryLimiter:
    def __init__(self, lease_seconds: float = 30.0, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._lease_ms, self._now_seconds = round(lease_seconds * 1e3), now_seconds
        self._tenants: defaultdict[str, _Tenant] = defaultdict(_Tenant)
        self._open: set[str] = set()

    async def reserve(self, tenant: str, limits: TenantLimits, demand: Demand) -> Reservation:
        state, now_ms = self._tenants[tenant], self._now_ms()
        buckets = self._filled(state, limits, now_ms)
        for budget, limit in limits_of(limits).items():
            wanted = demand.amounts.of(budget)
            wait_ms = bucket.missing_ms(buckets[budget].level, limit, wanted)
            if wait_ms:
                raise budget_spent(budget, limit, wanted, wait_ms)
        self._require_place(state, limits, demand, now_ms)
        for budget, kept in buckets.items():
            kept.level -= bucket.full(demand.amounts.of(budget))
        reservation = Reservation(reservation_id(demand), tenant, limits, demand)
        self._open.add(reservation.id)
        if demand.place is not None:
            state.places[demand.place][reservation.id] = now_ms + self._lease_ms
        return reservation

    async def settle(self, reservation: Reservation, used: Amounts) -> None:
        if reservation.id not in self._open:
            return
        self._open.remove(reservation.id)
        state = self._tenants[reservation.tenant]
        for budget, kept in self._filled(state, reservation.limits, self._now_ms()).items():
            kept.level += bucket.full(reservation.demand.amounts.of(budget) - used.of(budget))
        if reservation.demand.place is not None:
            state.places[reservation.demand.place].pop(reservation.id, None)

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        until_ms = self._now_ms() + self._lease_ms
        for reservation in reservations:
            place = reservation.demand.place
            held = self._tenants[reservation.tenant].places[place] if place is not None else {}
            if reservation.id in held:
                held[reservation.id] = until_ms

    async def standing(self, tenant: str, limits: TenantLimits) -> Standing:
        buckets = self._filled(self._tenants[tenant], limits, self._now_ms())
        return {budget: bucket.standing(buckets[budget].level, limit) for budget, limit in limits_of(limits).items()}

    def _now_ms(self) -> int:
        return int(self._now_seconds() * 1e3)

    def _filled(self, state: _Tenant, limits: TenantLimits, now_ms: int) -> dict[Budget, _Bucket]:
        found = {}
        for budget, limit in limits_of(limits).items():
            found[budget] = state.buckets.setdefault(budget, _Bucket(bucket.full(limit), now_ms))
            found[budget].fill(limit, now_ms)
        return found

    def _require_place(self, state: _Tenant, limits: TenantLimits, demand: Demand, now_ms: int) -> None:
        place, prefix = demand.place, prefix_of(demand)
        if place is None:
            return
        held, limit = state.places[place], places_of(limits, place)
        for gone in [reservation for reservation, until_ms in held.items() if until_ms <= now_ms]:
            del held[gone]
        mine = [reservation for reservation in held if prefix and reservation.startswith(prefix)]
        if limit is not None and len(held) - len(mine) >= limit:
            raise places_taken(place, limit)
        for taken_over in mine:
            del held[taken_over]
