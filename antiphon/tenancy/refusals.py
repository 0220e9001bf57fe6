"""The sentences in which a tenant learns that it has used up what it may."""

from typing import Final

from antiphon.errors import RateLimited
from antiphon.tenancy.limiter import Budget, Place

# A place is free when one of the tenant's own answers ends, which nobody knows.
_PLACE_SECONDS: Final = 1.0
# What a budget of zero is told: never.
_NEVER_SECONDS: Final = 86_400.0

_NAMED: Final[dict[Budget, str]] = {
    "requests": "requests",
    "tokens": "tokens",
    "audio_in_ms": "seconds of sound sent",
    "audio_out_ms": "seconds of sound spoken",
}
_PLACES: Final[dict[Place, str]] = {"turn": "answers", "session": "live sessions"}


def budget_spent(budget: Budget, limit: int, wanted: int, wait_ms: int) -> RateLimited:
    """limit: in a minute. wait_ms: until there is enough; below zero when there never will be."""
    seconds = wait_ms / 1e3 if wait_ms >= 0 else _NEVER_SECONDS
    per = 1e3 if budget.endswith("_ms") else 1
    return RateLimited(
        f"Rate limit reached: {limit / per:g} {_NAMED[budget]} a minute; this request needs {wanted / per:g}. "
        + (f"Try again in {seconds:.3g} s." if wait_ms >= 0 else "This key may use none."),
        retry_after_seconds=seconds,
        limited="requests" if budget == "requests" else "tokens",
    )


def places_taken(place: Place, limit: int) -> RateLimited:
    return RateLimited(
        f"Rate limit reached: {limit} {_PLACES[place]} at once. Wait until one has ended.",
        retry_after_seconds=_PLACE_SECONDS if limit else _NEVER_SECONDS,
    )
