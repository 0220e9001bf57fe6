"""What a user says in tests of live sessions, and two gateways for those who come back."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes
from tests.gateway.realtime.live import silence
from tests.gateway.realtime.returning import Two, gateways
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def spoken_question(nano: Path) -> tuple[NDArray[np.float32], int]:
    """ "the opposite of strong", with quiet around it that ends a turn; and its sample rate."""
    samples, rate_hz = soundfile.read(nano / "examples" / "question.wav", dtype="float32")
    return np.concatenate([silence(0.4, rate_hz), samples, silence(0.9, rate_hz)]), rate_hz


@pytest.fixture
async def two(settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer) -> AsyncIterator[Two]:
    """Their answers last a while."""
    fakes.talker.frames_after_text = 40
    async with gateways(settings, fakes.stages(), redis_server.url, redis_server.url) as found:
        yield found
