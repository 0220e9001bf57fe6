"""A process of every service is killed, gateways too, while two listeners ask: no turn fails or sounds otherwise."""

import subprocess
import sys
from collections import Counter

import pytest

from benchmarks.chaos import Kind, Plan, chaos
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

RAY_SECONDS = 240.0


async def test_no_turn_fails_whoever_is_killed() -> None:
    plan = Plan(turns=12, every=2, calm=False)
    tally = await chaos(Kind.PROCESSES, plan)
    print(tally.report())  # noqa: T201 - the measure of it
    assert len(tally.heard) == plan.turns
    assert not tally.failed
    assert not tally.different
    kills = Counter(kill.service for kill in tally.kills)
    assert all(kills[service] for service in plan.services)


def test_no_turn_fails_on_ray_whoever_is_killed() -> None:
    """In a process of its own: a process has one Ray."""
    command = [sys.executable, "-m", "benchmarks.chaos", "--on", "ray", "--turns", "12", "--every", "2", "--no-calm"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=RAY_SECONDS)
    print(run.stdout)  # noqa: T201 - the measure of it
    assert run.returncode == 0, run.stdout + run.stderr
    assert "12 turns, 0 failed, 0 different" in run.stdout
