"""The benchmark's client and tables, against a scripted server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.voice_turn import main
from tests.command_line.fake_platform import FINISH, LAST, FakePlatform, answer, delta, serving_fake, spoken

app = typer.Typer()
app.command()(main)


@pytest.fixture
def platform() -> Iterator[FakePlatform]:
    with serving_fake() as running:
        heard = [delta(audio={"transcript": "Yes."}), spoken(b"\0\0" * 12_000), spoken(b"\0\0" * 12_000)]
        running.body = answer(*heard, FINISH, LAST)
        yield running


def test_every_level_runs_its_turns(platform: FakePlatform, tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    arguments = [
        "--base-url",
        f"{platform.base_url}/v1",
        "--concurrency",
        "1,3",
        "--turns",
        "5",
        "--json",
        str(written),
    ]
    ran = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert ran.exit_code == 0, ran.output
    told = json.loads(written.read_text())
    assert [(run["concurrency"], run["turns"], run["failed"]) for run in told["runs"]] == [(1, 5, 0), (3, 5, 0)]
    assert told["baseline"] is None
    for run in told["runs"]:
        assert run["frames_per_second"] == pytest.approx(10 / 7 * run["tokens_per_second"])
        assert run["first_packet_ms"]["talker"] == 40.0
        # One second of speech.
        assert run["real_time_factor"]["p95"] >= run["first_audio_ms"]["p50"] / 1000
    # The first turn of a run is not counted; seeds tell the turns apart.
    assert sorted(body["seed"] for body in platform.asked) == sorted(2 * [0, 0, 1, 2, 3, 4])
    assert "talker" in ran.stdout


def test_failures_are_counted_and_told(platform: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    good = platform.body

    def body(self: FakePlatform) -> bytes:
        return good if self.asked[-1]["seed"] != 1 else answer({"error": {"message": "Too busy."}})

    monkeypatch.setattr(FakePlatform, "body", property(body, lambda self, value: None), raising=False)
    ran = CliRunner().invoke(app, ["--base-url", platform.base_url, "--concurrency", "1", "--turns", "3"])
    assert ran.exit_code == 0, ran.output
    assert "Too busy" in ran.stderr


def test_no_turn_at_all_is_told(platform: FakePlatform) -> None:
    platform.body = answer(FINISH, LAST)
    ran = CliRunner().invoke(app, ["--base-url", platform.base_url])
    assert ran.exit_code == 1
    assert "no text, no sound" in ran.stderr


@pytest.mark.parametrize("levels", ["", "0", "1,x"])
def test_unusable_levels_are_refused(platform: FakePlatform, levels: str) -> None:
    ran = CliRunner().invoke(app, ["--base-url", platform.base_url, "--concurrency", levels])
    assert ran.exit_code == 2
