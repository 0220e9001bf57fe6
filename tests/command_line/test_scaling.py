"""What `antiphon scaling` tells of recorded windows."""

from pathlib import Path

from typer.testing import CliRunner

from antiphon.scaling.pacing import Bounds, Pacing
from antiphon.scaling.policies import CallsPolicy
from antiphon.scaling.records import plan_line, window_line
from antiphon.scaling.scaler import Plan, Scaler
from antiphon.scaling.signals import CallSignals
from antiphon.scaling.window import Window
from services.command_line.main import app

PLAN = Plan(policy=CallsPolicy(calls_per_replica=4), pacing=Pacing(spread=0), bounds=Bounds(max_replicas=9))


def recorded(folder: Path) -> Path:
    scaler, target, lines = Scaler(PLAN), 1, [plan_line(PLAN)]
    for second, calls in enumerate((3.0, 3.0, 12.0, 12.0)):
        window = Window(1000.0 + second, target, target, [CallSignals(calls / target)] * target)
        decision = scaler.decide(window)
        lines.append(window_line(window, decision))
        target = decision.replicas
    file = folder / "codec.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_changes_are_told_with_their_reason(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["scaling", str(recorded(tmp_path))])
    assert told.exit_code == 0, told.output
    assert "2.0 s  1 -> 3  up: 12 calls" in told.output
    assert "4 windows, 0 decided otherwise" in told.output


def test_another_plan_is_told_where_it_differs(tmp_path: Path) -> None:
    other = tmp_path / "plan.json"
    other.write_text(PLAN.model_copy(update={"policy": CallsPolicy(calls_per_replica=2)}).model_dump_json())
    told = CliRunner().invoke(app, ["scaling", str(recorded(tmp_path)), "--plan", str(other)])
    assert "replayed: 6" in told.output
    assert "4 windows, 4 decided otherwise" in told.output


def test_what_is_no_record_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("hello")
    told = CliRunner().invoke(app, ["scaling", str(tmp_path / "other.txt")])
    assert told.exit_code == 1
    assert "Line 1: expected a plan" in told.output
