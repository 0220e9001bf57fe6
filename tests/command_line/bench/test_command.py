"""The benchmark's client and tables, against a scripted server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from services.command_line.bench.command import bench
from tests.command_line.fake_platform import FINISH, LAST, FakePlatform, answer, delta, serving_fake, spoken

app = typer.Typer()
app.command()(bench)


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
    # In 91 ms after its first token and 0.5 ms of waiting the Thinker wrote six more.
    assert [run["thinker_tokens_per_second"] for run in told["runs"]] == [pytest.approx(6 / 0.0905)] * 2


def test_no_question_repeats_another(platform: FakePlatform) -> None:
    ran = CliRunner().invoke(app, ["--base-url", platform.base_url, "--concurrency", "1,2", "--turns", "3"])
    assert ran.exit_code == 0, ran.output
    sounds = [body["messages"][0]["content"][0]["input_audio"]["data"] for body in platform.asked]
    assert len(set(sounds)) == len(sounds) == 8


def test_what_was_computed_before_is_told(platform: FakePlatform) -> None:
    cached = {**LAST["usage"], "prompt_tokens_details": {"cached_tokens": 16}}
    platform.body = answer(delta(audio={"transcript": "Yes."}), spoken(b"\0\0"), FINISH, {**LAST, "usage": cached})
    ran = CliRunner().invoke(app, ["--base-url", platform.base_url, "--concurrency", "1", "--turns", "2"])
    assert "16 tokens of each prompt were computed before" in ran.stdout


def test_the_bound_of_an_answer_is_asked_for(platform: FakePlatform) -> None:
    arguments = ["--base-url", platform.base_url, "--concurrency", "1", "--turns", "1", "--answer-tokens", "12"]
    CliRunner().invoke(app, arguments)
    assert [body["max_completion_tokens"] for body in platform.asked] == [12, 12]


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_sweep_is_drawn(platform: FakePlatform, tmp_path: Path, ending: str) -> None:
    picture = tmp_path / f"sweep.{ending}"
    arguments = ["--base-url", platform.base_url, "--concurrency", "1,2", "--turns", "2", "--plot", str(picture)]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    start = picture.read_bytes()[:200]
    assert start.startswith(b"\x89PNG") if ending == "png" else b"<?xml" in start


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--plot", "sweep.jpeg"], ".svg or .png"),
        (["--random-weights", "real", "--base-url", "http://127.0.0.1:1"], "no running platform"),
        (["--random-weights", "huge"], "huge"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_measured(
    platform: FakePlatform, arguments: list[str], told: str
) -> None:
    ran = CliRunner().invoke(app, ["--concurrency", "1", *arguments], env={"COLUMNS": "200"})
    assert ran.exit_code == 2
    assert told in ran.output
    assert platform.asked == []


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
