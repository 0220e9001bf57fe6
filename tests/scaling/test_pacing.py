"""From what is needed to what is done: properties of a stage's course through any load."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.scaling.pacing import Bounds, Pacing
from antiphon.scaling.policies import CallsPolicy
from antiphon.scaling.scaler import Plan, Scaler
from antiphon.scaling.signals import CallSignals
from antiphon.scaling.window import Decision, Window

EVERY_SECONDS = 10.0
PACING = Pacing(start_seconds=60, hold_seconds=300, trend_seconds=300)
BOUNDS = Bounds(max_replicas=100)


def plan(pacing: Pacing = PACING, bounds: Bounds = BOUNDS) -> Plan:
    return Plan(policy=CallsPolicy(calls_per_replica=10), pacing=pacing, bounds=bounds)


class Stage:
    """Replicas are there as soon as they are wanted; load is spread evenly."""

    def __init__(self, of: Plan | None = None, replicas: int = 1) -> None:
        self.scaler, self.replicas, self.now = Scaler(of or plan()), replicas, 0.0
        self.course: list[int] = []

    def step(self, calls: float | None, told: int | None = None) -> Decision:
        count = (self.replicas if told is None else told) if calls is not None else 0
        signals = [CallSignals((calls or 0.0) / self.replicas)] * count
        decision = self.scaler.decide(Window(self.now, self.replicas, self.replicas, signals))
        self.now += EVERY_SECONDS
        self.replicas = decision.replicas
        self.course.append(self.replicas)
        return decision


def test_a_sudden_load_is_met_at_once() -> None:
    stage = Stage()
    stage.step(5)
    assert stage.step(400).replicas >= 40


def test_a_load_that_has_gone_is_given_up_slowly_and_wholly() -> None:
    stage = Stage()
    stage.step(400)
    peak = stage.replicas
    for _ in range(int(PACING.hold_seconds / EVERY_SECONDS) - 1):
        assert stage.step(0).replicas == peak  # held as long as it was said
    for _ in range(400):
        before = stage.replicas
        assert before - stage.step(0).replicas <= max(1, before * PACING.down_share)
    assert stage.replicas == 1
    falls = [index for index in range(1, len(stage.course)) if stage.course[index] < stage.course[index - 1]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(falls)]
    assert min(gaps) * EVERY_SECONDS >= PACING.down_period_seconds


def test_a_rising_load_is_met_before_it_comes() -> None:
    """A replica that is asked for now answers after start_seconds: what is there then was asked for now."""
    stage = Stage()
    rise = 0.5  # calls a second
    for _ in range(60):
        stage.step(100 + rise * stage.now)
    at_arrival = (100 + rise * (stage.now + PACING.start_seconds - EVERY_SECONDS)) / 10
    assert stage.replicas >= at_arrival
    unsuspecting = Stage(plan(PACING.model_copy(update={"start_seconds": 0.0})))
    for _ in range(60):
        unsuspecting.step(100 + rise * unsuspecting.now)
    assert unsuspecting.replicas < stage.replicas


def test_a_burst_out_of_the_calm_is_foreseen_in_its_second_minute() -> None:
    def replicas_after(seconds: float, **pacing: float) -> int:
        stage = Stage(plan(PACING.model_copy(update=pacing)))
        for _ in range(60):
            stage.step(100)
        begins = stage.now
        while stage.now <= begins + seconds:
            stage.step(100 + 2 * (stage.now - begins))
        return stage.replicas

    at_arrival = (100 + 2 * (80 + PACING.start_seconds)) / 10
    assert replicas_after(80, burst_seconds=90) >= at_arrival
    assert replicas_after(80, burst_seconds=90, hold_seconds=1800) >= at_arrival, (
        "who holds on for long foresees as much"
    )
    assert replicas_after(80, burst_seconds=1) < 0.8 * at_arrival, "five minutes of calm outweigh the one since"


def test_steady_load_that_is_noisy_moves_nothing_to_and_fro() -> None:
    draws = random.Random(7)  # noqa: S311 - load, no secret
    stage = Stage(replicas=50)
    for _ in range(1080):  # three hours
        stage.step(sum(draws.random() < 0.4 for _ in range(1000)))
    settled = stage.course[180:]
    changes = sum(a != b for a, b in itertools.pairwise(settled))
    assert max(settled) - min(settled) <= 4
    assert changes <= 30  # of 900 decisions
    assert min(settled) >= 40


def test_without_signals_nothing_changes_and_nothing_is_given_up_after() -> None:
    stage = Stage()
    stage.step(400)
    peak = stage.replicas
    for _ in range(200):
        assert stage.step(None).replicas == peak
    for _ in range(int(PACING.hold_seconds / EVERY_SECONDS) - 1):
        assert stage.step(0).replicas == peak  # what nobody saw may have needed all


def test_with_few_signals_more_may_be_asked_for_and_never_less() -> None:
    stage = Stage(replicas=10)
    for _ in range(200):
        assert stage.step(10, told=5).replicas >= 10
    assert stage.step(500, told=5).replicas > 10


def test_a_controller_that_has_just_begun_gives_nothing_up() -> None:
    stage = Stage(replicas=20)
    for _ in range(int(PACING.hold_seconds / EVERY_SECONDS)):
        assert stage.step(0).replicas == 20
    stage.step(0)
    assert stage.replicas < 20


@pytest.mark.parametrize("trend_seconds", [30.0, 300.0, 3000.0])
def test_what_was_not_needed_is_given_up_as_soon_as_was_said(trend_seconds: float) -> None:
    """But for the length of a period, a sixtieth of what is remembered."""
    stage = Stage(plan(PACING.model_copy(update={"hold_seconds": 200.0, "trend_seconds": trend_seconds})))
    for _ in range(30):
        stage.step(200)
    calm_from, peak = stage.now, stage.replicas
    while stage.replicas == peak:
        stage.step(0)
    waited = stage.now - calm_from
    assert 200 <= waited <= 200 + trend_seconds / 60 + 2 * EVERY_SECONDS


@settings(max_examples=60)
@given(
    loads=st.lists(st.one_of(st.none(), st.floats(0, 5000)), min_size=1, max_size=80),
    least=st.integers(1, 20),
    room=st.integers(0, 40),
    start=st.integers(1, 60),
)
def test_bounds_hold_whatever_comes(loads: list[float | None], least: int, room: int, start: int) -> None:
    stage = Stage(plan(Pacing(hold_seconds=50), Bounds(min_replicas=least, max_replicas=least + room)), start)
    for calls in loads:
        assert least <= stage.step(calls).replicas <= least + room


@settings(max_examples=60)
@given(loads=st.lists(st.floats(0, 900), min_size=1, max_size=60), last=st.floats(0, 900), more=st.floats(0, 100))
def test_after_the_same_past_more_load_is_never_given_fewer(loads: list[float], last: float, more: float) -> None:
    stages = [Stage(plan(PACING.model_copy(update={"hold_seconds": 50.0}))) for _ in range(2)]
    for stage in stages:
        for calls in loads:
            stage.step(calls)
    assert stages[0].step(last + more).replicas >= stages[1].step(last).replicas


def test_what_is_remembered_stays_bounded_however_often_it_is_asked() -> None:
    scaler = Scaler(plan())
    for index in range(20_000):
        scaler.decide(Window(0.1 * index, 1, 1, [CallSignals(1.0)]))
    assert len(scaler._history.periods) <= 62


@pytest.mark.parametrize("falls", [-0.5, 0.0])
def test_no_trend_is_seen_where_none_is(falls: float) -> None:
    stage = Stage(plan(PACING.model_copy(update={"spread": 0.0})))
    for _ in range(60):
        stage.step(500 + falls * stage.now)
    decision = stage.step(500 + falls * stage.now)
    assert decision.replicas <= 50
