"""A gateway with a live session is killed in the midst of a response, and its client comes back to another one: every
event once, each sample once, and the words and the sound of a response that nobody disturbed.

Frames are decoded one by one here, so that there are many events between which a gateway can go.
"""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.hosted import HOSTED_STAGES
from tests.gateway.realtime.live import Event, Live, live
from tests.gateway.realtime.returning import numbers, returning, said
from tests.hosting.processes import Process, running
from tests.recovery.replicas import port_of
from tests.recovery.test_lost_gateways import url_of
from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow

AUDIO = "response.output_audio.delta"


@dataclass(frozen=True)
class Loss:
    """The gateway goes when its client has had so many of these."""

    kind: str
    count: int
    # Of what the client had, the last are lost on their way.
    unread: int
    name: str


LOSSES = (
    Loss("response.created", 1, 0, "before its first word"),
    Loss("response.output_audio_transcript.delta", 2, 0, "in its first words"),
    Loss(AUDIO, 8, 0, "while it speaks"),
    Loss(AUDIO, 20, 12, "with a second on its way to the client"),
)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def greedy(nano: Path, tmp_path: Path) -> Path:
    """The same weights; who asks twice is answered alike."""
    folder = tmp_path / nano.name
    folder.mkdir()
    for file in nano.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "generation_config.json").unlink()
    generation = json.loads((nano / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(generation | {"talker_do_sample": False}))
    return folder


def platform(checkpoint: Path, redis: RedisServer, opened: ExitStack) -> list[Process]:
    """A gateway to be killed in each loss, and one that survives; each stage a process too."""
    environment = {"ANTIPHON_CHECKPOINT": str(checkpoint), "ANTIPHON_REDIS_URL": redis.url}

    def start(service: str, **more: str) -> Process:
        return opened.enter_context(running("services", service, "--listen", "127.0.0.1:0", **environment, **more))

    # One frame a push, so that a loss can be told by the number of its event.
    started = {stage: start(stage, ANTIPHON_CODEC_FRAMES_PER_PUSH="1") for stage in HOSTED_STAGES}
    directory = {f"ANTIPHON_DIRECTORY_{stage.upper()}": f"127.0.0.1:{port_of(it)}" for stage, it in started.items()}
    return [start("gateway", **directory) for _ in range(len(LOSSES) + 1)]


async def test_whenever_a_gateway_is_killed_its_live_session_goes_on(greedy: Path, redis: RedisServer) -> None:
    with ExitStack() as opened:
        *victims, last = platform(greedy, redis, opened)
        survivor = await url_of(last)
        whole, seconds = await undisturbed(survivor)
        for loss, victim in zip(LOSSES, victims, strict=True):
            had, lost_at = await lose(victim, loss)
            assert had[-1]["type"] != "response.done"
            events, gap = await go_on(survivor, had, lost_at)
            print(  # noqa: T201 - the measure of it
                f"{loss.name}: lost after {len(said(had)[1]) / 48_000:.2f} of {len(whole[1]) / 48_000:.2f} s of sound, "
                f"the next came after {gap:.3f} s (undisturbed all of it takes {seconds:.2f} s)"
            )
            assert [event["event_id"] for event in events[: len(had)]] == [event["event_id"] for event in had]
            assert numbers(events) == list(range(1, len(events) + 1))
            assert events[-1]["response"]["status"] == "completed"
            assert said(events) == whole
            # A machine that cannot keep up with a single listener only measures itself.
            if seconds < len(whole[1]) / 48_000:
                assert gap <= 1.0


async def ask(client: Live) -> None:
    await client.say("Count to ten.")
    await client.send("response.create", response={})


async def undisturbed(url: str) -> tuple[tuple[str, bytes, str], float]:
    async with live(url) as client:
        await ask(client)
        asked_at = time.monotonic()
        await client.until("response.done")
        whole = said(client.events)
        assert len(whole[1]) > 48_000
        return whole, time.monotonic() - asked_at


async def lose(victim: Process, loss: Loss) -> tuple[list[Event], float]:
    """What a client has when his gateway goes without a word, and when it went."""
    async with live(await url_of(victim)) as client:
        await ask(client)
        while sum(event["type"] == loss.kind for event in client.events) < loss.count:
            await client.next()
        lost_at = time.monotonic()
        await asyncio.to_thread(victim.ends, signal.SIGKILL)
        return client.events[: len(client.events) - loss.unread], lost_at


async def go_on(url: str, had: list[Event], lost_at: float) -> tuple[list[Event], float]:
    """All events of the session, and seconds until there was new sound."""
    gap = 0.0
    async with returning(url, list(had)) as client:
        while client.events[-1]["type"] != "response.done":
            event = await client.next()
            if not gap and event["type"] == AUDIO:
                gap = time.monotonic() - lost_at
        return client.events, gap
