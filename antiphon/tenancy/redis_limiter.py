"""The limiter that all gateways share: one script reserves, one settles; limits hold however many ask at once."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, cast

from antiphon.storage.connection import Argument, Storage
from antiphon.storage.keys import key_of
from antiphon.tenancy import bucket
from antiphon.tenancy.caller import TenantLimits
from antiphon.tenancy.limiter import (
    Amounts,
    Demand,
    Place,
    Reservation,
    Standing,
    limits_of,
    places_of,
    prefix_of,
    reservation_id,
)
from antiphon.tenancy.limiter_scripts import RENEW, RESERVE, SETTLE, STANDING
from antiphon.tenancy.refusals import budget_spent, places_taken

# A turn or session that lasts longer is not put right at its end; its place is renewed all the same.
_REMEMBERED_MS: Final = 24 * 3600 * 1000
_RESERVED: Final = 0
_NO_PLACE: Final = 1


class RedisLimiter:
    def __init__(self, storage: Storage, lease_seconds: float = 30.0) -> None:
        self._storage, self._lease_ms = storage, round(lease_seconds * 1e3)

    async def reserve(self, tenant: str, limits: TenantLimits, demand: Demand) -> Reservation:
        reservation = Reservation(reservation_id(demand), tenant, limits, demand)
        places = places_of(limits, demand.place) if demand.place is not None else None
        most = -1 if places is None else places
        arguments: list[Argument] = [reservation.id, self._lease_ms, _REMEMBERED_MS, most, prefix_of(demand)]
        budgets = limits_of(limits)
        for budget, limit in budgets.items():
            arguments += [budget, limit, demand.amounts.of(budget)]
        reply = cast(list[int | bytes], await self._storage.run(RESERVE, _keys(tenant, demand.place), arguments))
        if reply[0] == _RESERVED:
            return reservation
        if reply[0] == _NO_PLACE and demand.place is not None and places is not None:
            raise places_taken(demand.place, places)
        budget, limit = list(budgets.items())[int(reply[1])]
        wanted = demand.amounts.of(budget)
        raise budget_spent(budget, limit, wanted, bucket.missing_ms(int(reply[2]), limit, wanted))

    async def settle(self, reservation: Reservation, used: Amounts) -> None:
        arguments: list[Argument] = [reservation.id]
        for budget, limit in limits_of(reservation.limits).items():
            arguments += [budget, limit, reservation.demand.amounts.of(budget) - used.of(budget)]
        await self._storage.run(SETTLE, _keys(reservation.tenant, reservation.demand.place), arguments)

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        held: defaultdict[tuple[str, Place], list[str]] = defaultdict(list)
        for reservation in reservations:
            if reservation.demand.place is not None:
                held[reservation.tenant, reservation.demand.place].append(reservation.id)
        for (tenant, place), ids in held.items():
            await self._storage.run(RENEW, [_places_key(tenant, place)], [self._lease_ms, _REMEMBERED_MS, *ids])

    async def standing(self, tenant: str, limits: TenantLimits) -> Standing:
        budgets = limits_of(limits)
        if not budgets:
            return {}
        arguments: list[Argument] = []
        for budget, limit in budgets.items():
            arguments += [budget, limit]
        levels = cast(list[bytes], await self._storage.run(STANDING, [key_of(tenant, "budgets")], arguments))
        return {
            budget: bucket.standing(int(level), limit)
            for (budget, limit), level in zip(budgets.items(), levels, strict=True)
        }


def _keys(tenant: str, place: Place | None) -> list[str]:
    keys = [key_of(tenant, "budgets"), key_of(tenant, "reservations")]
    return keys if place is None else [*keys, _places_key(tenant, place)]


def _places_key(tenant: str, place: Place) -> str:
    return key_of(tenant, "places", place)
