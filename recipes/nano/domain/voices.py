"""The voices of nano's world: flite and espeak-ng, and how those that ask vary in speed, pitch and loudness.

Needs the programs `flite` and `espeak-ng` (Debian's packages of these names; 2.2 and 1.51 were used).
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import soxr

Integers = np.ndarray[tuple[int], np.dtype[np.int16]]
Samples = np.ndarray[tuple[int], np.dtype[np.float32]]

RATE_HZ = 16_000
STEP_SAMPLES = 160  # a recording lasts whole mel frames
# One name twice is chosen twice as often.
FLITE_VOICES = ("slt", "rms", "awb", "kal16", "kal16")
ESPEAK_VOICES = ("american", "american-woman", "british", "british-woman")
VOICES_TO_LEARN_FROM = ("slt", "rms", "awb")
VOICES = FLITE_VOICES + ESPEAK_VOICES


@dataclass(frozen=True)
class EspeakVoice:
    variant: str
    pitch: int
    words_per_minute: int


ESPEAK = {
    "american": EspeakVoice("en-us", 50, 165),
    "american-woman": EspeakVoice("en-us+f3", 55, 165),
    "british": EspeakVoice("en-gb+m3", 45, 160),
    "british-woman": EspeakVoice("en-gb+f2", 60, 170),
}


def record(text: str, voice: str, roll: Random) -> Integers:
    """16 kHz, one channel: the words at a speed, pitch, loudness and with pauses of their own."""
    wave, rate_hz = say(text, voice, roll.uniform(0.85, 1.2), roll.randint(-8, 8))
    spoken = _faster(soxr.resample(trimmed(wave, rate_hz), rate_hz, RATE_HZ), roll.uniform(0.93, 1.08))
    spoken = spoken / (np.abs(spoken).max() + 1e-6) * roll.uniform(0.25, 0.9)
    before, after = (np.zeros(int(roll.uniform(0.02, 0.35) * RATE_HZ), np.float32) for _ in range(2))
    whole = np.concatenate([before, spoken, after])
    return as_integers(whole[: len(whole) // STEP_SAMPLES * STEP_SAMPLES])


def read_aloud(text: str, voice: str) -> Integers:
    """A flite voice as it is, 16 kHz, without the silence around it."""
    wave, rate_hz = say(text, voice)
    return as_integers(trimmed(wave, rate_hz))


def say(text: str, voice: str, stretch: float = 1.0, pitch_shift: int = 0) -> tuple[Samples, int]:
    """The synthesiser's own samples and their rate; stretch > 1 is slower. flite keeps its pitch."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        espeak = voice in ESPEAK
        command = _espeak(text, voice, stretch, pitch_shift, file) if espeak else _flite(text, voice, stretch, file)
        subprocess.run(command, check=True, capture_output=True)
        samples, rate_hz = soundfile.read(file, dtype="float32")
    return samples, rate_hz


def _flite(text: str, voice: str, stretch: float, file: Path) -> list[str]:
    return ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.3f}", "-t", text, str(file)]


def _espeak(text: str, voice: str, stretch: float, pitch_shift: int, file: Path) -> list[str]:
    own = ESPEAK[voice]
    pitch, speed = str(own.pitch + pitch_shift), str(int(own.words_per_minute / stretch))
    return ["espeak-ng", "-v", own.variant, "-p", pitch, "-s", speed, "-w", str(file), text]


def trimmed(wave: Samples, rate_hz: int) -> Samples:
    """Without the silence around it, but for 20 ms before and 60 ms after."""
    step = rate_hz // 100
    peaks = np.abs(wave[: len(wave) // step * step].reshape(-1, step)).max(axis=1)
    loud = np.nonzero(peaks > 0.006)[0]
    start, end = loud[0] * step - int(0.02 * rate_hz), (loud[-1] + 1) * step + int(0.06 * rate_hz)
    return wave[max(0, start) : end]


def _faster(wave: Samples, factor: float) -> Samples:
    """As a tape that runs faster: shorter and higher."""
    times = np.arange(int(len(wave) / factor)) * factor
    faster: Samples = np.interp(times, np.arange(len(wave)), wave).astype(np.float32)
    return faster


def as_integers(wave: Samples) -> Integers:
    integers: Integers = (wave * 32767).astype(np.int16)
    return integers
