"""`antiphon ask` against a scripted server: what it sends, what it shows, what it writes, how it fails."""

import asyncio
import base64
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from services.command_line import waiting as waiting_module
from services.command_line.ask import ask
from services.command_line.waiting import waiting
from tests.command_line.fake_platform import FINISH, LAST, FakePlatform, answer, delta, serving_fake, spoken

app = typer.Typer()
app.command()(ask)

SECOND = b"\1\0" * 24_000


@pytest.fixture
def platform() -> Iterator[FakePlatform]:
    with serving_fake() as running:
        running.body = answer(
            delta(role="assistant", content=None),
            delta(audio={"id": "audio_1", "transcript": "It is "}),
            spoken(SECOND),
            delta(audio={"id": "audio_1", "transcript": "[weak]."}),
            spoken(SECOND),
            delta(audio={"expires_at": 1}),
            FINISH,
            LAST,
        )
        yield running


def run(platform: FakePlatform, *arguments: str) -> tuple[int, str, str]:
    ran = CliRunner().invoke(app, [*arguments, "--base-url", platform.base_url], env={"COLUMNS": "140"})
    return ran.exit_code, ran.stdout, ran.stderr


def test_text_is_shown_and_sound_written(platform: FakePlatform, tmp_path: Path) -> None:
    spoken_answer = tmp_path / "answer.wav"
    code, shown, notes = run(platform, "hello", "--speak", str(spoken_answer))
    assert (code, notes) == (0, "")
    assert shown.startswith("It is [weak].\n")
    assert f"Spoken answer: {spoken_answer}" in shown
    with wave.open(str(spoken_answer)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        assert file.readframes(48_001) == 2 * SECOND


def test_first_packet_is_told_by_stage(platform: FakePlatform) -> None:
    _, shown, _ = run(platform, "hello")
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.startswith("  ") and line.strip()}
    assert list(rows) == ["stage", "prepare", "encoders", "thinker", "talker", "codec", "emit", "total"]
    assert rows["talker"][:2] == ["40.0", "40%"]
    assert rows["thinker"][3:] == ["0.5", "29.0", "120.0", "9"]
    assert rows["total"] == ["100.0", "100%"]
    assert "30 tokens in, 17 out" in shown


def test_typed_question_asks_for_text_and_timings(platform: FakePlatform) -> None:
    run(platform, "hello")
    asked = platform.asked[0]
    assert asked["model"] == "fake-omni"
    assert asked["modalities"] == ["text"]
    assert asked["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
    assert asked["stream_options"] == {"include_usage": True, "include_timings": True}
    assert "audio" not in asked


def test_media_travel_inside_the_request(platform: FakePlatform, nano: Path, tmp_path: Path) -> None:
    examples = nano / "examples"
    files = ["--audio", "question.wav", "--image", "image.png", "--video", "film.gif"]
    arguments = [str(examples / word) if "." in word else word for word in files]
    run(platform, "and?", *arguments, "--hear-video", "--speak", str(tmp_path / "a.wav"), "--voice", "chelsie")
    sound, image, video, text = platform.asked[0]["messages"][0]["content"]
    assert base64.b64decode(sound["input_audio"]["data"]) == (examples / "question.wav").read_bytes()
    assert sound["input_audio"]["format"] == "wav"
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert video["video_url"]["url"].startswith("data:video/gif;base64,")
    assert text == {"type": "text", "text": "and?"}
    assert platform.asked[0]["audio"] == {"voice": "chelsie", "format": "pcm16"}
    assert platform.asked[0]["mm_processor_kwargs"] == {"use_audio_in_video": True}


def test_with_nothing_to_ask_the_spoken_example_is_asked(platform: FakePlatform, nano: Path) -> None:
    code, _, notes = run(platform)
    assert code == 0
    assert "question.wav" in notes
    (sound,) = platform.asked[0]["messages"][0]["content"]
    assert base64.b64decode(sound["input_audio"]["data"]) == (nano / "examples" / "question.wav").read_bytes()


def test_without_an_address_the_platform_is_started_here(
    platform: FakePlatform, monkeypatch: pytest.MonkeyPatch, nano: Path
) -> None:
    started: list[Path] = []

    @asynccontextmanager
    async def embedded(checkpoint: Path) -> AsyncIterator[str]:
        started.append(checkpoint)
        yield platform.base_url

    monkeypatch.setattr("services.embedded.embedded_platform", embedded)
    ran = CliRunner().invoke(app, ["hello"])
    assert ran.exit_code == 0, ran.output
    assert started == [nano]


def test_a_platform_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = CliRunner().invoke(app, ["hello", "--checkpoint", str(tmp_path)])
    assert ran.exit_code == 1
    assert "config.json" in ran.stderr


def test_a_named_model_is_not_looked_up(platform: FakePlatform) -> None:
    platform.models = {"broken": True}
    assert run(platform, "hello", "--model", "mine")[0] == 0
    assert platform.asked[0]["model"] == "mine"


def test_an_answer_without_sound_leaves_no_file(platform: FakePlatform, tmp_path: Path) -> None:
    platform.body = answer(delta(content="Hm."), FINISH, LAST)
    code, shown, _ = run(platform, "hello", "--speak", str(tmp_path / "answer.wav"))
    assert code == 0
    assert "without sound" in shown
    assert not list(tmp_path.iterdir())


def test_a_refusal_is_told_with_its_field(platform: FakePlatform) -> None:
    platform.status = 400
    platform.body = b'{"error":{"message":"No voice [bob].","type":"x","param":"audio.voice","code":"invalid_value"}}'
    code, shown, notes = run(platform, "hello")
    assert (code, shown) == (1, "")
    assert notes == "antiphon ask: The server refused (audio.voice): No voice [bob].\n"


def test_an_answer_that_breaks_off_is_told(platform: FakePlatform) -> None:
    platform.body = answer(delta(content="It "), {"error": {"message": "A stage stopped.", "param": None}})
    code, shown, notes = run(platform, "hello")
    assert (code, shown) == (1, "It \n")
    assert "broke off: A stage stopped." in notes


def test_a_stream_without_its_end_is_told(platform: FakePlatform) -> None:
    platform.body = answer(delta(content="It "), is_whole=False)
    code, _, notes = run(platform, "hello")
    assert code == 1
    assert "before the answer was whole" in notes


def test_something_else_than_a_completion_is_told(platform: FakePlatform) -> None:
    platform.body = b"data: <html>\n\n"
    assert "Expected chunks of a chat completion" in run(platform, "hello")[2]


def test_a_server_without_models_is_told(platform: FakePlatform) -> None:
    platform.models = {"data": []}
    assert "has no model" in run(platform, "hello")[2]


def test_nobody_answering_is_told(platform: FakePlatform) -> None:
    platform.base_url = "http://127.0.0.1:9"
    code, _, notes = run(platform, "hello")
    assert code == 1
    assert "antiphon serve" in notes


def test_an_unknown_kind_of_file_is_told(platform: FakePlatform, tmp_path: Path) -> None:
    (tmp_path / "question.txt").write_text("?")
    code, _, notes = run(platform, "--audio", str(tmp_path / "question.txt"))
    assert code == 1
    assert "Expected a sound (.flac, .mp3" in notes
    assert not platform.asked


def test_a_file_that_cannot_be_written_is_told_before_asking(platform: FakePlatform, tmp_path: Path) -> None:
    code, _, notes = run(platform, "hello", "--speak", str(tmp_path / "missing" / "answer.wav"))
    assert code == 1
    assert "Cannot write" in notes
    assert not platform.asked


async def test_waiting_is_told_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "PATIENCE_SECONDS", 0.01)
    notes = Console(file=StringIO())
    async with waiting(notes, "Loading"):
        await asyncio.sleep(0.1)
    assert notes.file.getvalue() == "Loading …\n"


async def test_a_short_wait_is_not_told() -> None:
    notes = Console(file=StringIO())
    async with waiting(notes, "Loading"):
        await asyncio.sleep(0)
    assert notes.file.getvalue() == ""
