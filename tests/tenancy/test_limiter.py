"""Limits hold exactly, in one process and shared by many, whatever becomes of the requests."""

import asyncio
import time

import pytest

from antiphon.errors import RateLimited
from antiphon.storage.connection import Storage
from antiphon.tenancy.caller import UNLIMITED, TenantLimits
from antiphon.tenancy.limiter import Amounts, Demand, Limiter
from antiphon.tenancy.memory_limiter import MemoryLimiter
from antiphon.tenancy.redis_limiter import RedisLimiter

LEASE_SECONDS = 0.15


@pytest.fixture
def limiter(form: str, request: pytest.FixtureRequest) -> Limiter:
    if form == "memory":
        return MemoryLimiter(LEASE_SECONDS)
    storage: Storage = request.getfixturevalue("storage")
    return RedisLimiter(storage, LEASE_SECONDS)


def tokens(count: int, place: bool = False) -> Demand:
    return Demand(Amounts(tokens=count), "turn" if place else None)


async def outcomes(limiter: Limiter, limits: TenantLimits, demand: Demand, count: int) -> int:
    """How many of so many at once were let in."""
    asked = (limiter.reserve("acme", limits, demand) for _ in range(count))
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert all(not isinstance(each, BaseException) or isinstance(each, RateLimited) for each in found)
    return sum(not isinstance(each, RateLimited) for each in found)


async def test_as_many_requests_as_the_budget_has_are_let_in_at_once(limiter: Limiter) -> None:
    assert await outcomes(limiter, TenantLimits(requests_per_minute=20), Demand(), 60) == 20


async def test_tokens_are_counted_exactly(limiter: Limiter) -> None:
    limits = TenantLimits(tokens_per_minute=100)
    assert await outcomes(limiter, limits, tokens(7), 30) == 14
    standing = (await limiter.standing("acme", limits))["tokens"]
    assert (standing.limit, standing.remaining) == (100, 2)
    assert 58_000 < standing.reset_ms <= 59_000


async def test_all_of_a_demand_is_taken_or_nothing(limiter: Limiter) -> None:
    limits = TenantLimits(requests_per_minute=10, tokens_per_minute=10)
    await limiter.reserve("acme", limits, tokens(8))
    with pytest.raises(RateLimited):
        await limiter.reserve("acme", limits, Demand(Amounts(requests=1, tokens=8)))
    assert (await limiter.standing("acme", limits))["requests"].remaining == 10


async def test_a_budget_fills_evenly_and_says_when_there_is_enough(limiter: Limiter) -> None:
    limits = TenantLimits(tokens_per_minute=60_000)  # one each millisecond
    await limiter.reserve("acme", limits, tokens(60_000))
    with pytest.raises(RateLimited) as refused:
        await limiter.reserve("acme", limits, tokens(100))
    wait = refused.value.retry_after_seconds
    assert 0.05 < wait <= 0.1
    await asyncio.sleep(wait + 0.005)
    await limiter.reserve("acme", limits, tokens(100))


async def test_what_was_not_needed_comes_back_and_what_was_too_much_is_a_debt(limiter: Limiter) -> None:
    limits = TenantLimits(tokens_per_minute=1000)
    saved = await limiter.reserve("acme", limits, tokens(900))
    await limiter.settle(saved, Amounts(tokens=100))
    assert (await limiter.standing("acme", limits))["tokens"].remaining == pytest.approx(900, abs=5)
    longer = await limiter.reserve("acme", limits, tokens(10))
    await limiter.settle(longer, Amounts(tokens=1500))
    standing = (await limiter.standing("acme", limits))["tokens"]
    assert standing.remaining == 0
    assert standing.reset_ms == pytest.approx(1600 * 60, abs=300)
    with pytest.raises(RateLimited) as refused:
        await limiter.reserve("acme", limits, tokens(1))
    assert refused.value.retry_after_seconds == pytest.approx(601 * 0.06, abs=0.5)


async def test_settling_twice_settles_once(limiter: Limiter) -> None:
    limits = TenantLimits(tokens_per_minute=1000)
    reserved = await limiter.reserve("acme", limits, tokens(500))
    for _ in range(3):
        await limiter.settle(reserved, Amounts(tokens=400))
    assert (await limiter.standing("acme", limits))["tokens"].remaining == pytest.approx(600, abs=5)


async def test_more_than_a_whole_budget_waits_for_all_of_it_and_leaves_a_debt(limiter: Limiter) -> None:
    limits = TenantLimits(audio_out_seconds_per_minute=10)
    await limiter.reserve("acme", limits, Demand(Amounts(audio_out_ms=25_000), None))
    standing = (await limiter.standing("acme", limits))["audio_out_ms"]
    assert (standing.remaining, standing.limit) == (0, 10_000)
    assert standing.reset_ms == pytest.approx(150_000, abs=50)


async def test_places_are_counted_exactly_and_free_again_when_settled(limiter: Limiter) -> None:
    limits = TenantLimits(concurrent_turns=3)
    assert await outcomes(limiter, limits, Demand(), 10) == 3
    with pytest.raises(RateLimited, match="3 answers at once"):
        await limiter.reserve("acme", limits, Demand())
    await limiter.reserve("acme", TenantLimits(concurrent_sessions=1), Demand(Amounts(), "session"))
    await limiter.reserve("beta", limits, Demand())


async def test_a_place_that_was_settled_is_free_at_once(limiter: Limiter) -> None:
    limits = TenantLimits(concurrent_turns=1)
    for _ in range(3):
        await limiter.settle(await limiter.reserve("acme", limits, Demand()), Amounts(requests=1))


async def test_places_of_a_gateway_that_died_are_free_after_their_lease(limiter: Limiter) -> None:
    limits = TenantLimits(concurrent_turns=1)
    lost = await limiter.reserve("acme", limits, Demand())
    until = time.monotonic() + 2 * LEASE_SECONDS
    while time.monotonic() < until:
        await asyncio.sleep(LEASE_SECONDS / 4)
        await limiter.renew([lost])
    with pytest.raises(RateLimited):
        await limiter.reserve("acme", limits, Demand())
    await asyncio.sleep(LEASE_SECONDS + 0.02)
    await limiter.reserve("acme", limits, Demand())


async def test_a_gateway_that_was_taken_for_dead_still_pays(limiter: Limiter) -> None:
    limits = TenantLimits(tokens_per_minute=1000, concurrent_turns=1)
    slow = await limiter.reserve("acme", limits, tokens(100, place=True))
    await asyncio.sleep(LEASE_SECONDS + 0.02)
    await limiter.reserve("acme", limits, tokens(1, place=True))
    await limiter.settle(slow, Amounts(tokens=500))
    assert (await limiter.standing("acme", limits))["tokens"].remaining == pytest.approx(499, abs=10)
    with pytest.raises(RateLimited, match="1 answers"):
        await limiter.reserve("acme", limits, tokens(1, place=True))


async def test_a_budget_of_nothing_lets_nothing_in_for_ever(limiter: Limiter) -> None:
    with pytest.raises(RateLimited) as refused:
        await limiter.reserve("acme", TenantLimits(tokens_per_minute=0), tokens(1))
    assert refused.value.retry_after_seconds > 3600
    assert refused.value.limited == "tokens"


async def test_a_tenant_without_limits_has_no_standing(limiter: Limiter) -> None:
    await limiter.settle(await limiter.reserve("acme", UNLIMITED, Demand()), Amounts(requests=1))
    assert await limiter.standing("acme", UNLIMITED) == {}


async def test_a_limit_that_is_lowered_holds_at_once(limiter: Limiter) -> None:
    await limiter.reserve("acme", TenantLimits(tokens_per_minute=1000), tokens(10))
    lower = TenantLimits(tokens_per_minute=100)
    assert (await limiter.standing("acme", lower))["tokens"].remaining == 100


async def test_who_goes_on_for_a_holder_gets_his_place(limiter: Limiter) -> None:
    limits = TenantLimits(concurrent_sessions=2)
    mine, other = (Demand(Amounts(), "session", holder=holder) for holder in ("mine", "other"))
    lost = await limiter.reserve("acme", limits, mine)
    await limiter.reserve("acme", limits, other)
    gone_on = await limiter.reserve("acme", limits, mine)
    with pytest.raises(RateLimited):
        await limiter.reserve("acme", limits, Demand(Amounts(), "session"))
    await limiter.renew([lost])
    await limiter.settle(lost, Amounts())
    with pytest.raises(RateLimited):
        await limiter.reserve("acme", limits, Demand(Amounts(), "session", holder="min"))
    await limiter.settle(gone_on, Amounts())
    await limiter.reserve("acme", limits, Demand(Amounts(), "session"))
