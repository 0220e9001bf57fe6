"""Speech as bytes while it is made: bare PCM, a wav of unknown length, or what libsndfile compresses as it goes.

Only flac comes whole: libsndfile itself refuses one whose length it does not say.
"""

import io
import struct
from typing import Final, Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from services.gateway.audio.speech_request import SpeechFormat
from services.gateway.audio_formats import SAMPLE_RATE, pcm16

MEDIA_TYPES: Final[dict[SpeechFormat, str]] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_OPUS_SAMPLE_RATE: Final = 48_000
_UNKNOWN_BYTES: Final = 0xFFFFFFFF
# libsndfile's ogg writers overflow their stack on one long write.
_WRITE_SAMPLES: Final = 65_536
# (sample rate, format, subtype) of libsndfile.
_FILES: Final[dict[SpeechFormat, tuple[int, str, str]]] = {
    "mp3": (SAMPLE_RATE, "MP3", "MPEG_LAYER_III"),
    "opus": (_OPUS_SAMPLE_RATE, "OGG", "OPUS"),
    "flac": (SAMPLE_RATE, "FLAC", "PCM_16"),
}

Samples = NDArray[np.float32]


class SpeechEncoder(Protocol):
    def push(self, samples: Samples) -> bytes:
        """What can be sent by now; maybe nothing."""
        ...

    def finish(self) -> bytes: ...


def speech_encoder(speech_format: SpeechFormat) -> SpeechEncoder:
    if speech_format in _FILES:
        return CompressedSpeech(*_FILES[speech_format], is_whole=speech_format == "flac")
    return PlainSpeech(wav_header() if speech_format == "wav" else b"")


class PlainSpeech:
    def __init__(self, header: bytes) -> None:
        self._header = header

    def push(self, samples: Samples) -> bytes:
        header, self._header = self._header, b""
        return header + pcm16(samples)

    def finish(self) -> bytes:
        return self._header


class CompressedSpeech:
    def __init__(self, rate: int, container: str, subtype: str, *, is_whole: bool) -> None:
        self._is_whole = is_whole
        self._sink = _Sink()
        self._file = soundfile.SoundFile(self._sink, "w", rate, 1, subtype, format=container)
        self._resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(SAMPLE_RATE, rate, 1, dtype="float32")

    def push(self, samples: Samples) -> bytes:
        self._write(samples, is_last=False)
        return b"" if self._is_whole else self._sink.taken()

    def finish(self) -> bytes:
        self._write(np.zeros(0, np.float32), is_last=True)
        self._file.close()
        return self._sink.taken()

    def _write(self, samples: Samples, *, is_last: bool) -> None:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=is_last)
        for start in range(0, len(samples), _WRITE_SAMPLES):
            self._file.write(samples[start : start + _WRITE_SAMPLES])


class _Sink(io.RawIOBase):
    """A file whose beginning may be gone when libsndfile goes back to write its length there: such bytes are dropped,
    and players take the length as unknown."""

    def __init__(self) -> None:
        super().__init__()
        self._taken = self._place = 0
        self._kept = bytearray()

    def taken(self) -> bytes:
        """All that was written since."""
        kept, self._kept = bytes(self._kept), bytearray()
        self._taken += len(kept)
        return kept

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        written = bytes(data)
        offset = self._place - self._taken
        fresh = written[max(0, -offset) :]
        start = max(0, offset)
        self._kept[start : start + len(fresh)] = fresh
        self._place += len(written)
        return len(written)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        end = self._taken + len(self._kept)
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: end}[whence]
        return self._place

    def tell(self) -> int:
        return self._place


def wav_header() -> bytes:
    """Of 24 kHz, 16 bits, one channel, as long as it goes: the length says so with all bits set."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", _UNKNOWN_BYTES, b"WAVE") + form + struct.pack("<4sI", b"data", _UNKNOWN_BYTES)
