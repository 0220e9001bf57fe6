"""A spoken answer as bytes: whole files in the formats that libsndfile writes, and bare PCM for streams."""

import io
from typing import Final

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from antiphon.errors import InvalidInput
from services.gateway.openai.request import AudioFormat

SAMPLE_RATE: Final = 24_000
# Opus knows 8, 12, 16, 24 and 48 kHz; players expect the last.
_OPUS_SAMPLE_RATE: Final = 48_000

# (format, subtype) of libsndfile.
_FILES: Final[dict[AudioFormat, tuple[str, str]]] = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
}
# libsndfile's ogg writers overflow their stack on one long write.
_WRITE_SAMPLES: Final = 65_536
# An answer without speech (its first token ended it) is still a file that players open: 20 ms.
_SILENT_SAMPLES: Final = 480


def check_format(audio_format: AudioFormat, *, stream: bool) -> None:
    if stream and audio_format not in ("pcm16", "wav"):
        raise InvalidInput(
            f"Unsupported value: 'audio.format' does not support '{audio_format}' when stream=true. "
            "Supported values are: 'pcm16' (and 'wav', which means the same in a stream).",
            param="audio.format",
            code="unsupported_value",
        )
    if audio_format != "pcm16" and audio_format not in _FILES:
        raise InvalidInput(
            f"Unsupported value: 'audio.format' does not support '{audio_format}' on this server. "
            "Supported values are: 'wav', 'pcm16', 'flac', 'mp3' and 'opus'.",
            param="audio.format",
            code="unsupported_value",
        )


def pcm16(samples: NDArray[np.float32]) -> bytes:
    """Samples between -1 and 1 as signed 16-bit little-endian, 24 kHz, one channel, no header."""
    scaled: NDArray[np.float32] = np.rint(np.clip(samples, -1.0, 1.0) * 32767.0)
    return scaled.astype("<i2").tobytes()


def encode_file(samples: NDArray[np.float32], audio_format: AudioFormat) -> bytes:
    """A whole file. Takes CPU time: call it in a thread."""
    if audio_format == "pcm16":
        return pcm16(samples)
    container, subtype = _FILES[audio_format]
    if not len(samples):
        samples = np.zeros(_SILENT_SAMPLES, np.float32)
    rate = SAMPLE_RATE
    if audio_format == "opus":
        samples, rate = soxr.resample(samples, SAMPLE_RATE, _OPUS_SAMPLE_RATE), _OPUS_SAMPLE_RATE
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, 1, subtype, format=container) as writer:
        for start in range(0, len(samples), _WRITE_SAMPLES):
            writer.write(samples[start : start + _WRITE_SAMPLES])
    return file.getvalue()
