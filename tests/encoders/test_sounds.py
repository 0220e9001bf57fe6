"""Sound files of every kind to 16 kHz, one channel; broken and oversized ones to clear errors."""

import io
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antiphon.errors import InvalidInput, TooLarge, UnreadableMedia
from services.encoders.config import EncodersSettings
from services.encoders.sounds import read_sound

SETTINGS = EncodersSettings(checkpoint=Path("unused"), audio_seconds=5.0, audio_channels=2)


def tone(seconds: float, rate_hz: int = 16_000, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)
    return np.repeat(wave.astype(np.float32)[:, None], channels, axis=1)


def encoded(wave: np.ndarray, rate_hz: int = 16_000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate_hz, format=kind, subtype=subtype)
    return buffer.getvalue()


def test_16_khz_of_one_channel_is_untouched_bit_for_bit() -> None:
    steps = np.random.default_rng(0).integers(-32768, 32767, 70_001, dtype=np.int16)
    samples = read_sound(encoded(steps), SETTINGS)
    assert np.array_equal(samples, steps.astype(np.float32) / 32768)


@pytest.mark.parametrize(
    ("kind", "subtype", "rate_hz"),
    [
        ("WAV", "PCM_U8", 16_000),
        ("WAV", "PCM_24", 44_100),
        ("WAV", "FLOAT", 48_000),
        ("WAV", "ULAW", 8_000),
        ("FLAC", None, 22_050),
        ("OGG", "VORBIS", 44_100),
        ("OGG", "OPUS", 48_000),
        ("MP3", None, 32_000),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_kind_rate_and_channel_count_sounds_the_same(
    kind: str, subtype: str | None, rate_hz: int, channels: int
) -> None:
    samples = read_sound(encoded(tone(1.0, rate_hz, channels), rate_hz, kind, subtype), SETTINGS)
    assert samples.dtype == np.float32
    assert abs(len(samples) - 16_000) <= 1_600, "mp3 pads its ends"
    middle = samples[4_000:12_000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert abs(np.argmax(spectrum) * 16_000 / len(middle) - 440) < 3
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_channels_are_averaged() -> None:
    left, right = tone(0.5)[:, 0], np.zeros(8_000, np.float32)
    samples = read_sound(encoded(np.stack([left, right], axis=1), subtype="FLOAT"), SETTINGS)
    np.testing.assert_allclose(samples, left / 2, atol=1e-7)


def test_a_sound_at_the_bound_is_accepted_and_one_above_refused() -> None:
    assert len(read_sound(encoded(tone(5.0)), SETTINGS)) == 80_000
    with pytest.raises(InvalidInput, match="at most 5 s are accepted") as caught:
        read_sound(encoded(tone(5.001)), SETTINGS)
    assert caught.value.code == "media_too_long"


def test_a_file_that_unfolds_to_hours_is_refused_while_it_is_read() -> None:
    silence = encoded(np.zeros(16_000 * 1_200, np.int16), kind="FLAC")
    assert len(silence) < 200_000
    with pytest.raises(InvalidInput, match="too long"):
        read_sound(silence, SETTINGS)


def test_too_many_channels_are_refused() -> None:
    with pytest.raises(TooLarge, match="too many channels: at most 2 are accepted; it has 3"):
        read_sound(encoded(tone(0.5, channels=3)), SETTINGS)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000])
@pytest.mark.parametrize("loudness", [1e10, -1e10, 3e38])
def test_a_sound_too_loud_for_arithmetic_is_refused(loudness: float, rate_hz: int) -> None:
    wave = tone(0.5, rate_hz) * 0 + np.float32(loudness)
    with pytest.raises(UnreadableMedia, match=r"samples reach|not finite"):
        read_sound(encoded(wave, rate_hz, subtype="FLOAT"), SETTINGS)


def test_floats_of_16_bit_scale_are_read() -> None:
    assert np.abs(read_sound(encoded(tone(0.5) * 32_768, subtype="FLOAT"), SETTINGS)).max() > 10_000


@pytest.mark.parametrize("rate_hz", [1, 900, 900_000])
def test_odd_rates_are_refused(rate_hz: int) -> None:
    with pytest.raises(InvalidInput, match=f"the sound has {rate_hz} Hz"):
        read_sound(encoded(tone(0.01)[:4], rate_hz), SETTINGS)


@pytest.mark.parametrize("samples", [0, 1, 200])
def test_a_sound_without_length_is_refused(samples: int) -> None:
    with pytest.raises(UnreadableMedia, match=r"too short: expected at least 12\.6 ms"):
        read_sound(encoded(tone(1.0)[:samples]), SETTINGS)


def test_numbers_that_are_none_are_refused() -> None:
    wave = tone(0.5)
    wave[100] = np.nan
    with pytest.raises(UnreadableMedia, match="not finite"):
        read_sound(encoded(wave, subtype="FLOAT"), SETTINGS)


BROKEN = [
    b"",
    b"RIFF",
    b"not a sound at all",
    encoded(tone(0.5))[:30],
    encoded(tone(0.5), kind="FLAC")[:60],
    encoded(tone(0.5), kind="OGG")[:60],
    b"\x89PNG\r\n\x1a\n" + bytes(100),
    np.random.default_rng(0).bytes(5_000),
    encoded(tone(0.5), kind="AIFF"),
]


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_sound_is_refused_with_what_would_be(data: bytes) -> None:
    with pytest.raises(UnreadableMedia) as caught:
        read_sound(data, SETTINGS)
    assert "expected a wav, mp3, flac or ogg file" in caught.value.message or "too short" in caught.value.message
    assert " at 0x" not in caught.value.message


def test_damaged_files_never_raise_anything_else() -> None:
    random = np.random.default_rng(1)
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        whole = bytearray(encoded(tone(0.3), kind=kind))
        for _ in range(25):
            damaged = bytearray(whole)
            for place in random.integers(0, len(damaged), 8):
                damaged[place] = random.integers(0, 256)
            with suppress(InvalidInput):
                read_sound(bytes(damaged), SETTINGS)
