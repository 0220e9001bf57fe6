"""The policy that Ray Serve's controller calls, with what Serve would hand it."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
from ray.serve._private.common import TimeStampedValue
from ray.serve.config import AutoscalingContext

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
    """Of Serve's AutoscalingContext. All was recorded half a second ago, but by the silent."""

    aggregated_metrics: dict[str, dict[object, float]] | None = None
    target_num_replicas: int = 1
    running_replicas: list[object] = field(default_factory=lambda: ["r1"])
    total_num_requests: float = 0.0
    current_time: float | None = 0.0
    # Seconds for which a replica has recorded nothing.
    silent: dict[object, float] = field(default_factory=dict)

    @property
    def raw_metrics(self) -> dict[str, dict[object, list[TimeStampedValue]]] | None:
        if self.aggregated_metrics is None:
            return None
        return {
            name: {replica: self._series(replica, value) for replica, value in values.items()}
            for name, values in self.aggregated_metrics.items()
        }

    def _series(self, replica: object, value: float) -> list[TimeStampedValue]:
        latest = (self.current_time or 0.0) - self.silent.get(replica, 0.5)
        return [TimeStampedValue(latest - earlier, value) for earlier in (1.2, 0.6, 0.0)]


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


def test_a_replica_that_fell_silent_counts_as_silent_whatever_serve_keeps_of_it() -> None:
    """Its last word may be of rest, while it is drowning; so long as one in two is silent, none is given up."""
    hold = int(PACING.hold_seconds)
    for silent, replicas in (({}, 1), ({"r1": 300.0}, 2)):
        asked, decided = policy(SPEECH), []
        for second in range(3 * hold):
            given = recorded(1.0, replicas=2, at=float(second))
            given.silent = dict(silent)
            decided.append(asked(given)[0])
        assert min(decided) == replicas


def test_who_is_silent_is_taken_to_be_like_the_others() -> None:
    given = recorded(10.0, replicas=4)
    assert given.aggregated_metrics is not None
    for values in given.aggregated_metrics.values():
        values["r3"] = 0.0
    given.target_num_replicas = 1
    assert policy(SPEECH)(given)[0] == 3
    given.silent = {"r3": 60.0}
    assert policy(SPEECH)(given)[0] == 4


def test_when_all_are_silent_nothing_changes() -> None:
    given = recorded(95.0, replicas=2)
    given.silent = {"r0": 60.0, "r1": 60.0}
    desired, state = policy(SPEECH)(given)
    assert desired == 2
    assert "nothing is known" in state["reason"]


def test_the_context_is_the_one_that_serve_gives() -> None:
    """With metrics that Serve computes when they are asked for."""
    like = recorded(35.0, at=1.7e9)
    context = AutoscalingContext(
        deployment_id=None,
        deployment_name="replica",
        app_name="talker",
        current_num_replicas=1,
        target_num_replicas=1,
        running_replicas=like.running_replicas,
        total_num_requests=lambda: 0.0,
        total_queued_requests=lambda: 0.0,
        aggregated_metrics=lambda: like.aggregated_metrics,
        raw_metrics=lambda: like.raw_metrics,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=10,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=like.current_time,
        config=None,
    )
    assert policy(SPEECH)(context)[0] == 4


def test_the_gateways_calls_are_those_that_serve_counts() -> None:
    given = Recorded(total_num_requests=18, running_replicas=["r1", "r2"], target_num_replicas=2)
    assert policy(CALLS, counts_requests=True)(given)[0] == 5
    assert policy(CALLS, counts_requests=True)(Recorded(running_replicas=[], target_num_replicas=2))[0] == 2


def test_it_decides_once_in_two_seconds_however_often_it_is_asked() -> None:
    asked = policy(SPEECH)
    assert asked(recorded(15.0, at=100.0))[0] == 2
    assert asked(recorded(95.0, at=101.5))[0] == 2
    assert asked(recorded(95.0, at=102.0))[0] == 10


def test_what_was_decided_can_be_replayed_from_its_file(tmp_path: Path) -> None:
    path, target = tmp_path / "talker.jsonl", 1
    asked = policy(SPEECH, path=str(path), megabytes=1.0)
    decided = []
    for second in range(0, 60, 2):
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


def test_a_file_that_is_removed_or_cannot_be_written_keeps_nobody_from_deciding(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    path = folder / "talker.jsonl"
    asked = policy(SPEECH, path=str(path), megabytes=1.0)
    moments = iter(range(0, 100, 2))

    def decided() -> int:
        return asked(recorded(35.0, at=float(next(moments))))[0]

    assert [decided(), decided()] == [4, 4]  # there is no folder
    assert [record.levelname for record in caplog.records] == ["WARNING"], "once, and not each time"
    folder.mkdir()
    assert [decided(), decided()] == [4, 4]
    assert len(list(replay(path.read_text().splitlines()))) == 2
    path.unlink()
    assert [decided(), decided(), decided()] == [4, 4, 4]
    assert len(list(replay(path.read_text().splitlines()))) == 3


def test_what_was_written_before_the_disk_was_full_can_still_be_replayed(tmp_path: Path) -> None:
    """Files may not grow beyond a size at which half a line still goes in."""
    path = tmp_path / "talker.jsonl"
    asked = policy(SPEECH, path=str(path), megabytes=1.0)
    assert asked(recorded(35.0, at=0.0))[0] == 4
    written = path.read_text()
    with files_of_at_most(len(written) + 20):
        for second in range(1, 4):
            assert asked(recorded(35.0, at=float(second)))[0] == 4
    assert path.read_text() == written
    assert asked(recorded(35.0, at=9.0))[0] == 4
    assert len(list(replay(path.read_text().splitlines()))) == 2


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """In this process; Python ignores the signal that a longer one sends."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
