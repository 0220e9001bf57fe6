"""Sound files to 16 kHz, one channel: wav, mp3, flac and ogg, of any rate and number of channels."""

import io
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from antiphon.errors import AntiphonError, InvalidInput, TooLarge, UnreadableMedia
from antiphon.model.audio_features import MIN_SAMPLES, SAMPLE_RATE_HZ
from services.encoders.config import EncodersSettings

Samples = NDArray[np.float32]

_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "MP3", "MPEG", "FLAC", "OGG"})
_RATES_HZ = range(1_000, 768_001)
_BLOCK_FRAMES = 1 << 16
# Floats of any integer's scale are accepted; the energies of much louder ones are no numbers any more.
_LOUDEST = 2.0**31


def read_sound(data: bytes, settings: EncodersSettings) -> Samples:
    """float32 (samples,). A 16 kHz file of one channel comes out as it is, bit for bit.

    Raises UnreadableMedia for what is no sound, InvalidInput or TooLarge for one outside the bounds.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_kind(file)
            samples = to_16_khz(_blocks(file), file.samplerate, settings)
    except AntiphonError:
        raise
    except Exception as error:  # on broken bytes the libraries raise whatever they like
        raise _unreadable("the bytes are broken or of another kind") from error
    if len(samples) < MIN_SAMPLES:
        raise UnreadableMedia(
            f"The sound is too short: expected at least {MIN_SAMPLES / SAMPLE_RATE_HZ * 1e3:.1f} ms; "
            f"came {len(samples) / SAMPLE_RATE_HZ * 1e3:.1f} ms."
        )
    return samples


def to_16_khz(blocks: Iterator[Samples], rate_hz: int, settings: EncodersSettings) -> Samples:
    """blocks, each (samples, channels), as one channel of 16 kHz; stops as soon as they are too long."""
    if rate_hz not in _RATES_HZ:
        raise InvalidInput(
            f"Expected a sample rate from {_RATES_HZ[0]} to {_RATES_HZ[-1]} Hz; the sound has {rate_hz} Hz."
        )
    mono = _one_channel(blocks, rate_hz, settings)
    converted = list(mono if rate_hz == SAMPLE_RATE_HZ else _resampled(mono, rate_hz))
    samples = np.concatenate(converted) if converted else np.empty(0, np.float32)
    _check_numbers(samples)
    return samples


def _check_numbers(samples: Samples) -> None:
    if not np.isfinite(samples).all():
        raise _unreadable("some samples are not finite numbers")
    loudest = float(max(samples.max(initial=0.0), -samples.min(initial=0.0)))
    if loudest > _LOUDEST:
        raise _unreadable(f"its samples reach {loudest:.3g} where 1 is full scale")


def _one_channel(blocks: Iterator[Samples], rate_hz: int, settings: EncodersSettings) -> Iterator[Samples]:
    room = settings.audio_seconds * rate_hz
    for block in blocks:
        if block.shape[1] > settings.audio_channels:
            raise TooLarge(
                f"The sound has too many channels: at most {settings.audio_channels} are accepted; it has "
                f"{block.shape[1]}. Mix it down."
            )
        room -= len(block)
        if room < 0:
            raise InvalidInput(
                f"The sound is too long: at most {settings.audio_seconds:g} s are accepted. Cut it.",
                code="media_too_long",
            )
        yield block[:, 0].copy() if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _resampled(blocks: Iterator[Samples], rate_hz: int) -> Iterator[Samples]:
    stream = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _check_kind(file: soundfile.SoundFile) -> None:
    if file.format not in _FORMATS:
        raise _unreadable(f"it is {file.format}")


def _blocks(file: soundfile.SoundFile) -> Iterator[Samples]:
    while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        yield block


def _unreadable(came: str) -> UnreadableMedia:
    return UnreadableMedia(f"The sound cannot be read: expected a wav, mp3, flac or ogg file; {came}.")
