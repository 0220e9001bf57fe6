"""What a tenant may take of the platform in a minute and at once: the words of the seam, for both of its forms.

Budgets are token buckets: each holds a minute's worth, fills up evenly, and may fall below zero when an answer takes
more than was reserved for it; the debt is paid before anything else is let in. A bucket is two numbers however busy its
tenant is, it can be given back to, and it says exactly when there will be enough. What it does not promise: that no
sixty seconds see more than the limit, since a full bucket may be emptied while it fills.
Places (turns and sessions at once) are leases: those of a gateway that died are free again after `lease_seconds`.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, get_args

from antiphon.tenancy.caller import TenantLimits

Budget = Literal["requests", "tokens", "audio_in_ms", "audio_out_ms"]
BUDGETS: Final[tuple[Budget, ...]] = get_args(Budget)
Place = Literal["turn", "session"]


@dataclass(frozen=True, slots=True)
class Amounts:
    """Of each budget."""

    requests: int = 0
    tokens: int = 0
    audio_in_ms: int = 0
    audio_out_ms: int = 0

    def of(self, budget: Budget) -> int:
        amount: int = getattr(self, budget)
        return amount


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request is taken to need before it is known: reserved at once, put right when it is settled."""

    amounts: Amounts = Amounts(requests=1)
    # Taken until it is settled.
    place: Place | None = "turn"
    # Whoever takes a place for the same holder gets his, also from a gateway that died; empty for a place of its own.
    holder: str = ""


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    limit: int
    # Never below zero.
    remaining: int
    # Until it is full.
    reset_ms: int


# Of the budgets that have a limit.
Standing = Mapping[Budget, BudgetStanding]


@dataclass(frozen=True, slots=True)
class Reservation:
    id: str
    tenant: str
    limits: TenantLimits
    demand: Demand


class Limiter(Protocol):
    """Raises RateLimited where the tenant has used up what it may, Unavailable where nobody can tell."""

    async def reserve(self, tenant: str, limits: TenantLimits, demand: Demand) -> Reservation:
        """All of the demand or nothing; one larger than a whole budget needs all of it and leaves a debt."""
        ...

    async def settle(self, reservation: Reservation, used: Amounts) -> None:
        """Puts right what was reserved and frees the place; a second time does nothing."""
        ...

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        """Keeps their places for another `lease_seconds`."""
        ...

    async def standing(self, tenant: str, limits: TenantLimits) -> Standing: ...


def limits_of(limits: TenantLimits) -> dict[Budget, int]:
    """What a minute has of each budget that is limited."""
    found = {
        "requests": limits.requests_per_minute,
        "tokens": limits.tokens_per_minute,
        "audio_in_ms": _ms(limits.audio_in_seconds_per_minute),
        "audio_out_ms": _ms(limits.audio_out_seconds_per_minute),
    }
    return {budget: found[budget] for budget in BUDGETS if found[budget] is not None}  # type: ignore[misc]


def places_of(limits: TenantLimits, place: Place) -> int | None:
    return limits.concurrent_turns if place == "turn" else limits.concurrent_sessions


def reservation_id(demand: Demand) -> str:
    """Of one holder all begin alike."""
    return f"{prefix_of(demand)}{uuid.uuid4().hex}"


def prefix_of(demand: Demand) -> str:
    return f"{demand.holder}:" if demand.holder else ""


def is_limited(limits: TenantLimits) -> bool:
    places = (limits.concurrent_turns, limits.concurrent_sessions)
    return bool(limits_of(limits)) or any(limit is not None for limit in places)


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e3)
