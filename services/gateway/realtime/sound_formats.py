"""Sound of live sessions as bytes: signed 16-bit PCM at 24 kHz, and the two laws of G.711 at 8 kHz.

The laws are the tables of ITU-T G.711: 8 bits for 14 (mu) or 13 (A) of a linear sample.
"""

import base64
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from antiphon.errors import InvalidInput
from services.gateway.audio_formats import SAMPLE_RATE, pcm16
from services.gateway.realtime.core.items import SAMPLE_RATES_HZ, Encoding

_MU_BIAS: Final = 33 << 2
# A resampler's output depends on no more than this of what went before.
_SETTLING_SAMPLES: Final = 24_000


def pcm16_of(data: bytes, encoding: Encoding, param: str) -> bytes:
    """A client's sound as signed 16-bit samples, at the rate of its encoding."""
    if encoding == "pcm":
        if len(data) % 2:
            raise InvalidInput(
                f"Invalid value for '{param}': expected 16-bit samples, an even number of bytes; got {len(data)}.",
                param=param,
            )
        return data
    return _expansions(encoding)[np.frombuffer(data, np.uint8)].tobytes()


def encoded(pcm: bytes, encoding: Encoding) -> bytes:
    """Back: signed 16-bit samples in the encoding, rate unchanged."""
    if encoding == "pcm":
        return pcm
    samples = np.frombuffer(pcm, "<i2").astype(np.int32) + 32_768
    return _compressions(encoding)[samples].tobytes()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


class SoundOut:
    """One answer's sound on its way out: 24 kHz in, a client's encoding out. skip_bytes: of what comes out first, which
    the client has already."""

    def __init__(self, encoding: Encoding, skip_bytes: int = 0) -> None:
        self._encoding: Encoding = encoding
        self._skip_bytes = skip_bytes
        rate = SAMPLE_RATES_HZ[encoding]
        self._stream = None if rate == SAMPLE_RATE else soxr.ResampleStream(SAMPLE_RATE, rate, 1, dtype="float32")

    def push(self, samples: NDArray[np.float32]) -> bytes:
        return self._bytes(samples, is_last=False)

    def finish(self) -> bytes:
        """What the resampler still holds."""
        return self._bytes(np.zeros(0, np.float32), is_last=True) if self._stream is not None else b""

    def _bytes(self, samples: NDArray[np.float32], *, is_last: bool) -> bytes:
        if self._stream is not None:
            samples = self._stream.resample_chunk(samples, last=is_last)
        data = encoded(pcm16(samples), self._encoding)
        skipped = min(self._skip_bytes, len(data))
        self._skip_bytes -= skipped
        return data[skipped:]


@dataclass(frozen=True, slots=True)
class SoundAgain:
    """Of sound that goes on: where it is made again from, so that a resampler is in the state that it was in."""

    # At 24 kHz.
    first_sample: int
    # From there on, that the client has; and in its encoding.
    known_samples: int
    known_bytes: int

    @classmethod
    def behind(cls, sample_count: int, byte_count: int, encoding: Encoding) -> "SoundAgain":
        """So many samples have gone into it, so many bytes have come out."""
        rate = SAMPLE_RATES_HZ[encoding]
        if rate == SAMPLE_RATE:
            return cls(sample_count, 0, 0)
        step = SAMPLE_RATE // rate
        first = max(0, sample_count - _SETTLING_SAMPLES) // step * step
        return cls(first, sample_count - first, byte_count - first // step)


@cache
def _expansions(encoding: Encoding) -> NDArray[np.int16]:
    """The linear sample of each of 256 codes, 16 bits."""
    codes = np.arange(256, dtype=np.int32)
    return (_expand_mu(codes) if encoding == "pcmu" else _expand_a(codes)).astype("<i2")


@cache
def _compressions(encoding: Encoding) -> NDArray[np.uint8]:
    """The nearest code of each linear sample, from -32768 upwards."""
    order = np.argsort(_expansions(encoding), kind="stable")
    levels = _expansions(encoding)[order].astype(np.int32)
    middles = (levels[1:] + levels[:-1]) / 2
    return order[np.searchsorted(middles, np.arange(-32_768, 32_768))].astype(np.uint8)


def _expand_mu(codes: NDArray[np.int32]) -> NDArray[np.int32]:
    inverted = ~codes & 0xFF
    exponent, mantissa = (inverted >> 4) & 7, inverted & 0xF
    magnitude = (((mantissa << 3) + _MU_BIAS) << exponent) - _MU_BIAS
    return np.where(inverted & 0x80, -magnitude, magnitude)


def _expand_a(codes: NDArray[np.int32]) -> NDArray[np.int32]:
    toggled = codes ^ 0x55
    exponent, mantissa = (toggled >> 4) & 7, toggled & 0xF
    small = (mantissa << 4) + 8
    magnitude = np.where(exponent == 0, small, (small + 0x100) << np.maximum(exponent - 1, 0))
    return np.where(toggled & 0x80, magnitude, -magnitude)
