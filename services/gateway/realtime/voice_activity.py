"""How likely each window of a user's sound is speech: Silero's detector on 16 kHz, resampled as the sound comes."""

from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from services.gateway.realtime.core.items import SAMPLE_RATES_HZ, Encoding
from services.gateway.realtime.silero import WINDOW_SAMPLES, Hearing, network

_RATE_HZ: Final = 16_000


class VoiceActivity:
    """Of one sound, which comes in pieces of any length."""

    def __init__(self, encoding: Encoding) -> None:
        self._network, self._hearing = network(), Hearing.new()
        self._stream = soxr.ResampleStream(SAMPLE_RATES_HZ[encoding], _RATE_HZ, 1, dtype="float32", quality="MQ")
        self._left: NDArray[np.float32] = np.zeros(0, np.float32)

    def push(self, pcm16: bytes) -> list[float]:
        """One probability for every window of 32 ms that has become whole. Less than 0.1 ms each."""
        samples = np.frombuffer(pcm16, "<i2").astype(np.float32) / 32_768
        heard = np.concatenate([self._left, self._stream.resample_chunk(samples)])
        whole = len(heard) - len(heard) % WINDOW_SAMPLES
        self._left = heard[whole:]
        if not whole:
            return []
        gates = self._network.gates(heard[:whole].reshape(-1, WINDOW_SAMPLES))
        return [self._network.probability(row, self._hearing) for row in gates]
