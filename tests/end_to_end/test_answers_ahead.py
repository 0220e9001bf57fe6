"""Answers that were prepared, or begun at a pause, are those that would have been given without: text and sound."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.hosting.service import HostedService, ServiceLoad
from antiphon.telemetry.metrics import Metrics
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from services.hosted import HOSTED_STAGES, hosted_service
from tests.gateway.conftest import listening
from tests.gateway.realtime.live import heard, live, pcm, silence

RATE_HZ = 24_000
# Of 8 s of sound.
WINDOW_TOKENS = 104


@dataclass(frozen=True)
class Answer:
    text: str
    # int16
    sound: NDArray[np.int16]
    cached_tokens: int
    used: float
    prepared: float


@pytest.fixture(scope="module")
def greedy_nano(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint, which draws nothing."""
    folder = tmp_path_factory.mktemp("greedy") / nano.name
    folder.mkdir()
    for file in nano.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").unlink()
    generation = json.loads((nano / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**generation, "talker_do_sample": False}))
    return folder


@pytest.fixture
async def stages(greedy_nano: Path, tmp_path: Path) -> AsyncIterator[tuple[StageCaller, list[HostedService]]]:
    address = f"unix:{tmp_path}/stages.sock"
    services = [hosted_service(stage, greedy_nano) for stage in HOSTED_STAGES]
    directory = StaticDirectory(dict.fromkeys(HOSTED_STAGES, address))
    async with serving(services, address, ServerLimits(drain_seconds=1)), StageCaller(directory) as caller:
        yield caller, services


@asynccontextmanager
async def gateway(checkpoint: Path, caller: StageCaller, *, ahead: bool) -> AsyncIterator[tuple[str, Metrics]]:
    """Its callers share nothing with those of the other: its secret is another."""
    metrics = Metrics()
    with pytest.MonkeyPatch.context() as environment:
        for name in ("PREPARES", "SPECULATES"):
            environment.setenv(f"ANTIPHON_REALTIME_{name}", str(ahead))
        environment.setenv("ANTIPHON_KEY_PEPPER", f"ahead is {ahead}")
        settings = GatewaySettings(checkpoint=checkpoint, max_speech_frames=40)
        app = create_app(settings, caller.stages(), metrics=metrics)
    async with listening(app) as url:
        yield url, metrics


async def ask(url: str, metrics: Metrics, samples: NDArray[np.float32], *, ahead: bool) -> Answer:
    """ahead: he speaks no faster than he is read."""

    def read(name: str, outcome: str) -> float:
        return metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0

    async with live(url) as client:
        await client.update(instructions="You are a helpful assistant.", max_output_tokens=12)
        data = pcm(np.concatenate([samples, silence(0.4, RATE_HZ)]))
        for second in range(-(-len(data) // 48_000)):
            if ahead:
                await until(lambda due=1 + (second - 2) // 8: read("antiphon_preparations_total", "done") >= due)
            piece = base64.b64encode(data[second * 48_000 : (second + 1) * 48_000]).decode()
            await client.send("input_audio_buffer.append", audio=piece)
        rest = base64.b64encode(pcm(silence(0.5, RATE_HZ))).decode()
        await client.send("input_audio_buffer.append", audio=rest)
        done = (await client.until("response.done"))["response"]
        sound = np.frombuffer(heard(client.events, done["id"]), "<i2")
    (part,) = done["output"][0]["content"]
    cached_tokens = done["usage"]["input_token_details"]["cached_tokens"]
    done_ahead, used = read("antiphon_preparations_total", "done"), read("antiphon_speculative_turns_total", "used")
    return Answer(part["transcript"], sound, cached_tokens, used, done_ahead)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - no event for this
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seconds", [2, 18])
async def test_an_answer_is_the_same_whether_it_was_computed_ahead_or_not(
    seconds: int, nano: Path, greedy_nano: Path, stages: tuple[StageCaller, list[HostedService]]
) -> None:
    recording, rate_hz = soundfile.read(nano / "examples" / "question.wav", dtype="float32")
    samples = soxr.resample(np.resize(recording, seconds * rate_hz), rate_hz, RATE_HZ)
    caller, services = stages
    answers = {}
    for ahead in (False, True):
        async with gateway(greedy_nano, caller, ahead=ahead) as (url, metrics):
            answers[ahead] = await ask(url, metrics, samples, ahead=ahead)
    at_once, ahead = answers[False], answers[True]
    assert (at_once.used, at_once.prepared, at_once.cached_tokens) == (0, 0, 0)
    assert ahead.used == 1
    # What is computed while the rows of sound are on their way does not count as spared.
    assert ahead.cached_tokens > (seconds // 8 - 0.5) * WINDOW_TOKENS
    assert ahead.text == at_once.text != ""
    assert len(ahead.sound) == len(at_once.sound) > 0
    np.testing.assert_allclose(ahead.sound.astype(int), at_once.sound.astype(int), atol=2)
    await until(lambda: all(service.load() == ServiceLoad() for service in services))
