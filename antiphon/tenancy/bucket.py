"""The arithmetic of one token bucket, in whole numbers.

A level is an amount times 60,000, so that each millisecond adds exactly the minute's limit and nothing is ever rounded.
"""

from typing import Final

from antiphon.tenancy.limiter import BudgetStanding

MINUTE_MS: Final = 60_000


def full(limit: int) -> int:
    return limit * MINUTE_MS


def filled(level: int, limit: int, elapsed_ms: int) -> int:
    """Also when the limit has been lowered since."""
    return min(full(limit), level + max(0, elapsed_ms) * limit)


def missing_ms(level: int, limit: int, amount: int) -> int:
    """Until there is enough: 0 for now, -1 for never. What is larger than the whole bucket waits for all of it."""
    if not amount:
        return 0
    if not limit:
        return -1
    lacking = full(min(amount, limit)) - level
    return max(0, -(-lacking // limit))


def standing(level: int, limit: int) -> BudgetStanding:
    reset_ms = -(-(full(limit) - level) // limit) if limit else 0
    return BudgetStanding(limit, max(0, level // MINUTE_MS), reset_ms)
