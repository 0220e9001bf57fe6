"""Stock clients, as their makers publish them, before the platform that serves nano."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np
import pytest
import soundfile
import soxr
from livekit import rtc

from tests.gateway.realtime.live import pcm, silence

# As a WebRTC room gives it.
ROOM_RATE_HZ: Final = 48_000


@pytest.fixture
async def http_session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(scope="session")
def spoken_question(nano: Path) -> bytes:
    """ "the opposite of strong" with quiet around it: signed 16-bit PCM at 48 kHz."""
    samples, rate_hz = soundfile.read(nano / "examples" / "question.wav", dtype="float32")
    whole = np.concatenate([silence(0.4, rate_hz), samples, silence(1.6, rate_hz)])
    return pcm(soxr.resample(whole, rate_hz, ROOM_RATE_HZ))


def frames(pcm16: bytes) -> Iterator[rtc.AudioFrame]:
    """Of 10 ms, as a track gives them."""
    step = ROOM_RATE_HZ // 100 * 2
    for start in range(0, len(pcm16) - step + 1, step):
        yield rtc.AudioFrame(pcm16[start : start + step], ROOM_RATE_HZ, 1, step // 2)
