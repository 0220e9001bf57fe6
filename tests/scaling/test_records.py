"""A recorded day, replayed: the same decisions by the same code, other ones by another plan."""

import random

import pytest

from antiphon.errors import InvalidInput
from antiphon.scaling.pacing import Bounds, Pacing
from antiphon.scaling.policies import SpeechPolicy
from antiphon.scaling.records import plan_line, replay, window_line
from antiphon.scaling.scaler import Plan, Scaler, told
from antiphon.scaling.signals import SpeechSignals
from antiphon.scaling.window import Window

PLAN = Plan(policy=SpeechPolicy(), pacing=Pacing(hold_seconds=100), bounds=Bounds(max_replicas=50))


def recorded_lines() -> tuple[list[str], list[int]]:
    draws, scaler, target = random.Random(3), Scaler(PLAN), 2  # noqa: S311 - load, no secret
    lines, decided = [plan_line(PLAN)], []
    for index in range(300):
        sound = draws.uniform(0, 30) if index % 100 < 60 else 1.0
        signals = [SpeechSignals(sound, 128, sound, sound, draws.random(), 0.1 * draws.random())] * target
        window = Window(10.0 * index, target, target, signals if index % 17 else [])
        decision = scaler.decide(window)
        lines.append(window_line(window, decision))
        target = decision.replicas
        decided.append(target)
    return lines, decided


def test_a_replay_decides_as_it_was_decided() -> None:
    lines, decided = recorded_lines()
    replayed = list(replay(lines))
    assert [each.decided.replicas for each in replayed] == decided
    assert all(each.recorded == each.decided for each in replayed)
    assert len(set(decided)) > 3


def test_another_plan_decides_otherwise() -> None:
    lines, _ = recorded_lines()
    frugal = Plan(policy=SpeechPolicy(sound_per_replica=200), pacing=PLAN.pacing, bounds=PLAN.bounds)
    assert sum(each.decided.replicas for each in replay(lines, frugal)) < sum(
        each.recorded.replicas for each in replay(lines, frugal)
    )


@pytest.mark.parametrize(("line", "number"), [("{}", 1), ("no JSON", 1)])
def test_what_is_no_record_is_named_by_its_line(line: str, number: int) -> None:
    with pytest.raises(InvalidInput, match=f"Line {number}: expected a plan"):
        list(replay([line]))
    with pytest.raises(InvalidInput, match=r"Line 2: expected a window"):
        list(replay([plan_line(PLAN), line]))


def test_a_replica_that_tells_only_half_tells_nothing() -> None:
    whole = {"streams": 1, "places": 2, "sound_rate": 3, "playing": 4, "short_leads": 5, "first_p95_seconds": 6}
    half = {"streams": 1.0, "places": 2.0}
    assert told(PLAN, [whole | {"active_calls": 9}, half]) == [SpeechSignals(1, 2, 3, 4, 5, 6)]
