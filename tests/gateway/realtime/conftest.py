"""What a user says in tests of live sessions."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from tests.gateway.realtime.live import silence


@pytest.fixture(scope="session")
def spoken_question(nano: Path) -> tuple[NDArray[np.float32], int]:
    """ "the opposite of strong", with quiet around it that ends a turn; and its sample rate."""
    samples, rate_hz = soundfile.read(nano / "examples" / "question.wav", dtype="float32")
    return np.concatenate([silence(0.4, rate_hz), samples, silence(0.9, rate_hz)]), rate_hz
