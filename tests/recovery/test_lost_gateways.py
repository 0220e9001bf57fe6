"""A gateway is killed in the middle of a spoken answer, and its client goes on at another one as if nothing had been:
the sound is the same to the last bit."""

import asyncio
import base64
import io
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

from antiphon.hosting.grpc_server import ServerLimits, serving
from services.hosted import HOSTED_STAGES, hosted_service
from tests.end_to_end.conversations import sound
from tests.gateway.test_resumed_streams import CHAT, Heard
from tests.hosting.processes import Process, running
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow

# Of sound: 24,000 samples of two bytes in base64.
_TEXT_A_SECOND = 64_000


@dataclass(frozen=True)
class Loss:
    """When the gateway goes: after so many events and so much sound, which comes in pieces of any length."""

    events: int
    sound_seconds: float
    asked: dict[str, Any]
    name: str


def question(*, media: bool = False, **sampling: Any) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": "Count to ten."}]
    if media:
        wav = io.BytesIO()
        soundfile.write(wav, sound(1.5).samples, 16_000, format="WAV")
        data = base64.b64encode(wav.getvalue()).decode()
        content.insert(0, {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
    return {
        "model": "antiphon-nano",
        "messages": [{"role": "user", "content": content}],
        "modalities": ["text", "audio"],
        "audio": {"voice": "ethan", "format": "pcm16"},
        "stream": True,
        "stream_options": {"include_usage": True},
        **sampling,
    }


GREEDY = {"temperature": 0, "talker_temperature": 0}
DRAWN = {"temperature": 0.8, "top_k": 40, "seed": 7}
LOSSES = (
    Loss(2, 0.0, question(**GREEDY), "greedy, in its first words"),
    Loss(10, 0.5, question(**GREEDY), "greedy, while it speaks"),
    Loss(10, 0.0, question(media=True, **DRAWN), "drawn, about a sound, when all its text is written"),
    Loss(10, 1.5, question(**DRAWN), "drawn, far into its speech"),
)


@asynccontextmanager
async def stages(nano: Path, folder: Path) -> AsyncIterator[str]:
    address = f"unix:{folder}/stages.sock"
    services = [hosted_service(stage, nano) for stage in HOSTED_STAGES]
    async with serving(services, address, ServerLimits(drain_seconds=1)):
        yield address


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


async def test_whenever_a_gateway_is_killed_another_goes_on_from_there(
    nano: Path, tmp_path: Path, redis: RedisServer
) -> None:
    async with stages(nano, tmp_path) as address, httpx.AsyncClient(timeout=60) as client:
        with ExitStack() as opened:
            directory = {f"ANTIPHON_DIRECTORY_{stage.upper()}": address for stage in HOSTED_STAGES}
            started = [
                opened.enter_context(
                    running("services", "gateway", "--listen", "127.0.0.1:0", ANTIPHON_REDIS_URL=redis.url, **directory)
                )
                for _ in range(len(LOSSES) + 1)
            ]
            survivor = await url_of(started[-1])
            for loss, victim in zip(LOSSES, started, strict=False):
                whole, asked_at = Heard(), time.monotonic()
                whole.read((await client.post(f"{survivor}{CHAT}", json=loss.asked)).text)
                whole_seconds = time.monotonic() - asked_at
                assert whole.is_done
                assert len(whole.pcm) > 24_000
                heard = await lose(client, victim, loss)
                assert not heard.is_done
                before, lost_at = len(heard.pcm), time.monotonic()
                gap = await go_on(client, survivor, heard, lost_at)
                print(  # noqa: T201 - the measure of it
                    f"{loss.name}: lost after {before / 48_000:.2f} of {len(whole.pcm) / 48_000:.2f} s of sound, "
                    f"went on after {gap:.3f} s (undisturbed it takes {whole_seconds:.2f} s)"
                )
                assert (heard.text, heard.is_done, heard.error) == (whole.text, True, None)
                assert heard.pcm == whole.pcm
                assert heard.usage["completion_tokens"] == whole.usage["completion_tokens"]
                # A machine that cannot keep up with a single listener only measures itself.
                if whole_seconds < len(whole.pcm) / 48_000:
                    assert gap <= 1.0


async def lose(client: httpx.AsyncClient, victim: Process, loss: Loss) -> Heard:
    """What a client has when his gateway goes without a word."""
    heard, text = Heard(), ""
    try:
        async with client.stream("POST", f"{await url_of(victim)}{CHAT}", json=loss.asked) as stream:
            async for part in stream.aiter_text():
                text += part
                if text.count("data: ") >= loss.events and len(text) >= loss.sound_seconds * _TEXT_A_SECOND:
                    victim.ends(signal.SIGKILL)
    except httpx.HTTPError:
        pass
    heard.read(text[: text.rfind("\n\n") + 2])
    return heard


async def go_on(client: httpx.AsyncClient, gateway: str, heard: Heard, lost_at: float) -> float:
    """Seconds until there was something new."""
    gap, text = 0.0, ""
    url, headers = f"{gateway}{CHAT}/{heard.answer_id}/events", {"last-event-id": heard.last_id}
    async with client.stream("GET", url, headers=headers) as stream:
        async for part in stream.aiter_text():
            gap = gap or time.monotonic() - lost_at
            text += part
    heard.read(text)
    return gap


async def url_of(process: Process) -> str:
    line = await asyncio.to_thread(process.wait_for, lambda line: "serves on port" in line)
    found = re.search(r"serves on port (\d+)", line)
    assert found is not None
    return f"http://127.0.0.1:{found[1]}"
