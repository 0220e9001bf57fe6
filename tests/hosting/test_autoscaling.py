"""The policy that Ray Serve's controller calls, with what Serve would hand it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from antiphon.hosting.autoscaling import StagePolicy
from antiphon.scaling.pacing import Bounds, Pacing
from antiphon.scaling.policies import CallsPolicy, SpeechPolicy
from antiphon.scaling.records import replay
from antiphon.scaling.scaler import Plan
from antiphon.scaling.signals import SpeechSignals

BOUNDS = Bounds(max_replicas=10)
PACING = Pacing(spread=0, hold_seconds=30)
SPEECH = Plan(policy=SpeechPolicy(sound_per_replica=10, busy_share=1), pacing=PACING, bounds=BOUNDS)
CALLS = Plan(policy=CallsPolicy(calls_per_replica=4), pacing=PACING, bounds=BOUNDS)


@dataclass
class Recorded:
    """Of Serve's AutoscalingContext."""

    aggregated_metrics: dict[str, dict[object, float]] | None = None
    target_num_replicas: int = 1
    running_replicas: list[object] = field(default_factory=lambda: ["r1"])
    total_num_requests: float = 0.0
    current_time: float | None = 0.0


def policy(plan: Plan, *, counts_requests: bool = False, **windows: object) -> StagePolicy:
    return StagePolicy(plan.model_dump(mode="json"), counts_requests=counts_requests, windows=windows)


def recorded(sound_rate: float, replicas: int = 1, at: float = 0.0) -> Recorded:
    signals = asdict(SpeechSignals(sound_rate, 100, sound_rate, sound_rate, 0, 0)) | {"calls": 1.0}
    names = [f"r{index}" for index in range(replicas)]
    metrics = {name: dict.fromkeys(names, value) for name, value in signals.items()}
    return Recorded(metrics, replicas, list(names), 0.0, at)


@pytest.mark.parametrize(
    ("metrics", "replicas"),
    [
        (None, 3),
        ({}, 3),
        ({"calls": {"r1": 0.0, "r2": 0.0, "r3": 0.0}}, 3),
        ({"calls": {"r1": 4.0, "r2": 16.0, "r3": 0.5}}, 6),
    ],
    ids=["nothing", "no names", "no calls", "many calls"],
)
def test_calls_ask_for_replicas_and_silence_changes_nothing(
    metrics: dict[str, dict[object, float]] | None, replicas: int
) -> None:
    given = Recorded(metrics, target_num_replicas=3, running_replicas=["r1", "r2", "r3"])
    assert policy(CALLS)(given)[0] == replicas


def test_a_stage_goes_by_its_own_signals_and_not_by_its_calls() -> None:
    desired, state = policy(SPEECH)(recorded(35.0))
    assert desired == 4
    assert "35 listeners" in state["reason"]


def test_replicas_that_are_gone_count_no_more() -> None:
    given = recorded(10.0, replicas=4)
    given.running_replicas = ["r0", "r1"]
    given.target_num_replicas = 2
    assert policy(SPEECH)(given)[0] == 2


def test_the_gateways_calls_are_those_that_serve_counts() -> None:
    given = Recorded(total_num_requests=18, running_replicas=["r1", "r2"], target_num_replicas=2)
    assert policy(CALLS, counts_requests=True)(given)[0] == 5
    assert policy(CALLS, counts_requests=True)(Recorded(running_replicas=[], target_num_replicas=2))[0] == 2


def test_it_decides_once_a_second_however_often_it_is_asked() -> None:
    asked = policy(SPEECH)
    assert asked(recorded(15.0, at=100.0))[0] == 2
    assert asked(recorded(95.0, at=100.5))[0] == 2
    assert asked(recorded(95.0, at=101.0))[0] == 10


def test_what_was_decided_can_be_replayed_from_its_file(tmp_path: Path) -> None:
    path, target = tmp_path / "talker.jsonl", 1
    asked = policy(SPEECH, path=str(path), megabytes=1.0)
    decided = []
    for second in range(60):
        target = asked(recorded(35.0 if second < 20 else 1.0, target, float(second)))[0]
        decided.append(target)
    replayed = list(replay(path.read_text().splitlines()))
    assert [each.decided.replicas for each in replayed] == decided
    assert max(decided) == 10
    assert decided[-1] < 10


def test_the_files_stay_bounded_and_each_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "talker.jsonl"
    asked = policy(SPEECH, path=str(path), megabytes=0.01)
    for second in range(200):
        asked(recorded(5.0, 1, float(second)))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["talker.jsonl", "talker.jsonl.before"]
    for file in files:
        assert file.stat().st_size < 12_000
        assert list(replay(file.read_text().splitlines()))


def test_another_controller_begins_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "talker.jsonl"
    for plan in (SPEECH, CALLS):
        policy(plan, path=str(path), megabytes=1.0)(recorded(5.0))
    assert len(list(replay(path.read_text().splitlines()))) == 1
    assert path.with_name("talker.jsonl.before").exists()
