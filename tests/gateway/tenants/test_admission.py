"""What was taken for a caller is given back whenever he leaves, also while he is being let in."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from antiphon.prompt.prompt import TokenCounts
from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.caller import Caller, TenantLimits
from antiphon.tenancy.limiter import Amounts, Demand, Reservation, Standing
from antiphon.tenancy.memory_limiter import MemoryLimiter
from antiphon.tenancy.opening import Tenancy, tenancy_in_memory
from services.gateway.admission import Admission
from services.gateway.http.rate_limit_headers import go_duration
from services.gateway.turns.usage import TurnUsage
from tests.gateway.tenants.conftest import SETTINGS

CALLER = Caller("acme", "key_1", b"salt", limits=TenantLimits(concurrent_turns=1, tokens_per_minute=1000))
DEMAND = Demand(Amounts(requests=1, tokens=600))


@dataclass
class FarLimiter:
    """Answers a while after it has decided, as one over a network does."""

    near: MemoryLimiter = field(default_factory=MemoryLimiter)

    async def reserve(self, tenant: str, limits: TenantLimits, demand: Demand) -> Reservation:
        reservation = await self.near.reserve(tenant, limits, demand)
        await asyncio.sleep(0.05)
        return reservation

    async def settle(self, reservation: Reservation, used: Amounts) -> None:
        await self.near.settle(reservation, used)

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        await self.near.renew(reservations)

    async def standing(self, tenant: str, limits: TenantLimits) -> Standing:
        return await self.near.standing(tenant, limits)


@pytest.fixture
def admission() -> Admission:
    memory = tenancy_in_memory(SETTINGS)
    far = Tenancy(memory.settings, memory.registry, FarLimiter(), memory.usage, memory.replies, memory.secrets)
    return Admission(far, ("nano",), Metrics())


async def turn(admission: Admission, usage: TurnUsage, seconds: float) -> None:
    async with admission.admit(CALLER, DEMAND, usage):
        await asyncio.sleep(seconds)


async def left(admission: Admission) -> int:
    return (await admission.standing(CALLER))["tokens"].remaining


@pytest.mark.parametrize("left_after_seconds", [0.01, 0.08])
async def test_who_is_cancelled_leaves_nothing_taken(admission: Admission, left_after_seconds: float) -> None:
    leaving = asyncio.create_task(turn(admission, TurnUsage(), 30))
    await asyncio.sleep(left_after_seconds)
    leaving.cancel()
    await asyncio.wait({leaving})
    await admission.close()
    assert await left(admission) >= 999
    await turn(admission, TurnUsage(), 0)


async def test_who_is_cancelled_pays_what_was_made_for_him(admission: Admission) -> None:
    usage = TurnUsage()
    leaving = asyncio.create_task(turn(admission, usage, 30))
    await asyncio.sleep(0.07)
    usage.prompt, usage.text_tokens = TokenCounts(text=100, audio=0, image=0, video=0), 200
    leaving.cancel()
    await asyncio.wait({leaving})
    await admission.close()
    assert await left(admission) == pytest.approx(700, abs=5)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (12, "12ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (360_000, "6m0s"),
        (3_600_000, "1h0m0s"),
        (61_250, "1m1.25s"),
    ],
)
def test_a_reset_is_written_as_go_writes_a_duration(milliseconds: int, text: str) -> None:
    assert go_duration(milliseconds) == text
