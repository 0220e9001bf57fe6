"""A process of every service is killed, gateways too, while two listeners ask: no turn fails or sounds otherwise."""

from collections import Counter

import pytest

from benchmarks.chaos import Kind, Plan, chaos

pytestmark = pytest.mark.slow


async def test_no_turn_fails_whoever_is_killed() -> None:
    plan = Plan(turns=12, every=2, calm=False)
    tally = await chaos(Kind.PROCESSES, plan)
    print(tally.report())  # noqa: T201 - the measure of it
    assert len(tally.heard) == plan.turns
    assert not tally.failed
    assert not tally.different
    kills = Counter(kill.service for kill in tally.kills)
    assert all(kills[service] for service in plan.services)
