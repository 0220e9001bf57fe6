"""What is computed of a turn before it is asked: the turn finds it, answers the same, and nobody else gains by it."""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.hosting.service import HostedService, ServiceLoad
from antiphon.prompt.conversation import Audio, Conversation, Message, Text
from antiphon.telemetry.page_metrics import PageCounts
from antiphon.v1.generation_pb2 import Sampling
from antiphon.v1.media_pb2 import MODALITY_AUDIO
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.request import Medium, SpeechDelta, SpeechRequest, TextDelta, TurnEnd, TurnRequest
from services.hosted import HOSTED_STAGES, hosted_service
from tests.gateway.turns import a_watch
from tests.recovery.replicas import conductor

RATE_HZ = 24_000
# Of 8 s of sound.
WINDOW_TOKENS = 104
PAGE_TOKENS = 16
TENANT, ANOTHER = b"1" * 32, b"2" * 32


@dataclass(frozen=True)
class Answer:
    text: str
    samples: NDArray[np.float32]
    cached_tokens: int


@dataclass(frozen=True)
class Running:
    conductor: Conductor
    services: Mapping[str, HostedService]

    async def answer(self, request: TurnRequest) -> Answer:
        text, samples, cached_tokens = "", [np.empty(0, np.float32)], 0
        async with self.conductor.open_turn(request, a_watch()) as events:
            async for event in events:
                match event:
                    case TextDelta():
                        text += event.text
                    case SpeechDelta():
                        samples.append(event.samples)
                    case TurnEnd():
                        cached_tokens = event.cached_tokens
        return Answer(text, np.concatenate(samples), cached_tokens)

    async def becomes_idle(self) -> None:
        """No request is left, and no page held."""
        async with asyncio.timeout(10):
            while any(service.load() != ServiceLoad() for service in self.services.values()):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)

    def pages(self, stage: str) -> PageCounts:
        read = self.services[stage].pages
        assert read is not None
        return read()

    def reused_rows(self) -> dict[str, int]:
        return {stage: self.pages(stage).reused_rows for stage in ("thinker", "talker")}


@asynccontextmanager
async def running(checkpoint: Path, folder: Path) -> AsyncIterator[Running]:
    address = f"unix:{folder}/stages.sock"
    services = [hosted_service(stage, checkpoint) for stage in HOSTED_STAGES]
    directory = StaticDirectory(dict.fromkeys(HOSTED_STAGES, address))
    async with serving(services, address, ServerLimits(drain_seconds=1)), StageCaller(directory) as caller:
        yield Running(conductor(caller.stages(), checkpoint), {service.stage: service for service in services})


@pytest.fixture(scope="module")
def recording(nano: Path) -> NDArray[np.int16]:
    """20 s of speech."""
    samples, rate_hz = soundfile.read(nano / "examples" / "question.wav", dtype="int16")
    return np.resize(np.repeat(samples, RATE_HZ // rate_hz), 20 * RATE_HZ)


def asked(recording: NDArray[np.int16], seconds: float, *, salt: bytes = TENANT) -> TurnRequest:
    file = io.BytesIO()
    soundfile.write(file, recording[: round(seconds * RATE_HZ)], RATE_HZ, format="WAV")
    system = Message("system", (Text("You are a helpful assistant. Answer in one short sentence."),))
    return TurnRequest(
        conversation=Conversation((system, Message("user", (Audio(),)))),
        media=(Medium(MODALITY_AUDIO, file.getvalue(), "messages"),),
        sampling=Sampling(seed=1),
        max_answer_tokens=16,
        stop=(),
        speech=SpeechRequest("ethan", Sampling(repetition_penalty=1.05, seed=1), max_frames=24),
        cache_salt=salt,
        affinity=b"session",
    )


def assert_same(one: Answer, other: Answer) -> None:
    assert one.text == other.text
    assert len(one.samples) == len(other.samples) > 0
    np.testing.assert_allclose(one.samples, other.samples, atol=2 / 32_768)


async def test_a_turn_finds_what_was_prepared_while_it_was_spoken(
    nano: Path, tmp_path: Path, recording: NDArray[np.int16]
) -> None:
    async with running(nano, tmp_path) as platform:
        cold = await platform.answer(asked(recording, 18, salt=b"3" * 32))
        for seconds in (8.1, 16.1):
            await platform.conductor.prepare(asked(recording, seconds))
        before = platform.reused_rows()
        stranger = await platform.answer(asked(recording, 18, salt=ANOTHER))
        between = platform.reused_rows()
        warm = await platform.answer(asked(recording, 18))
        after = platform.reused_rows()
        await platform.becomes_idle()
    assert cold.cached_tokens == stranger.cached_tokens == 0
    assert between == before
    assert warm.cached_tokens == after["thinker"] - between["thinker"] >= 2 * WINDOW_TOKENS
    assert after["talker"] - between["talker"] >= 2 * WINDOW_TOKENS - 2 * PAGE_TOKENS
    assert_same(warm, cold)
    assert_same(stranger, cold)


async def test_a_preparation_leaves_nothing_behind_but_pages_that_nobody_holds(
    nano: Path, tmp_path: Path, recording: NDArray[np.int16]
) -> None:
    async with running(nano, tmp_path) as platform:
        await platform.conductor.prepare(asked(recording, 8.1))
        await platform.becomes_idle()
        for seconds in (0.0, 0.01, 0.05, 0.2):
            preparing = asyncio.create_task(platform.conductor.prepare(asked(recording, 16.1, salt=ANOTHER)))
            await asyncio.sleep(seconds)
            preparing.cancel()
            await asyncio.wait({preparing})
        await platform.becomes_idle()


async def test_without_a_salt_nothing_is_prepared(nano: Path, tmp_path: Path, recording: NDArray[np.int16]) -> None:
    async with running(nano, tmp_path) as platform:
        await platform.conductor.prepare(replace(asked(recording, 8.1), cache_salt=b""))
        assert platform.pages("thinker").kept == platform.pages("talker").kept == 0
