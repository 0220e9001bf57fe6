"""Sounds that are not speech, synthesised, and what nano calls them."""

from collections.abc import Callable

import numpy as np

Integers = np.ndarray[tuple[int], np.dtype[np.int16]]
Samples = np.ndarray[tuple[int], np.dtype[np.float64]]

RATE_HZ = 16_000
STEP_SAMPLES = 160  # a sound lasts whole mel frames
FADE_SAMPLES = 160
CAPTIONS = {
    "rising": "I hear a rising tone.",
    "falling": "I hear a falling tone.",
    "low": "I hear a low tone.",
    "high": "I hear a high tone.",
    "beep1": "I hear one beep.",
    "beep2": "I hear two beeps.",
    "beep3": "I hear three beeps.",
    "beep4": "I hear four beeps.",
    "beep5": "I hear five beeps.",
    "noise": "I hear noise.",
    "silence": "I hear silence.",
    "chord": "I hear a chord.",
    "siren": "I hear a siren.",
    "clicks": "I hear clicks.",
}
QUESTIONS = ("what do you hear", "what is this sound", "describe the sound")


def synthesise(kind: str, seed: int) -> Integers:
    """16 kHz, one channel; the same seed always gives the same sound."""
    roll = np.random.default_rng(seed)
    length = _whole_steps(roll.uniform(1.2, 2.5))
    loudness = roll.uniform(0.2, 0.7)
    if kind.startswith("beep"):
        wave = _beeps(roll, length, int(kind.removeprefix("beep")))
    else:
        wave = MAKERS[kind](roll, np.arange(length) / RATE_HZ)
    loudness = 1.0 if kind == "silence" else loudness
    wave = wave * _fades(len(wave)) * loudness
    integers: Integers = (np.clip(wave, -1, 1) * 32767).astype(np.int16)
    return integers


def _whole_steps(seconds: float) -> int:
    return int(seconds * RATE_HZ) // STEP_SAMPLES * STEP_SAMPLES


def _fades(length: int) -> Samples:
    envelope = np.ones(length)
    envelope[:FADE_SAMPLES] = np.linspace(0, 1, FADE_SAMPLES)
    envelope[-FADE_SAMPLES:] = np.linspace(1, 0, FADE_SAMPLES)
    return envelope


def _sine(cycles: Samples) -> Samples:
    return np.sin(2 * np.pi * cycles)


def _glide(time: Samples, start_hz: float, end_hz: float) -> Samples:
    seconds = len(time) / RATE_HZ
    return _sine(start_hz * time + (end_hz - start_hz) * time**2 / 2 / seconds)


def _rising(roll: np.random.Generator, time: Samples) -> Samples:
    return _glide(time, roll.uniform(200, 350), roll.uniform(900, 1600))


def _falling(roll: np.random.Generator, time: Samples) -> Samples:
    end_hz, start_hz = roll.uniform(200, 350), roll.uniform(900, 1600)
    return _glide(time, start_hz, end_hz)


def _low(roll: np.random.Generator, time: Samples) -> Samples:
    return _sine(roll.uniform(120, 240) * time)


def _high(roll: np.random.Generator, time: Samples) -> Samples:
    return _sine(roll.uniform(1200, 2400) * time)


def _noise(roll: np.random.Generator, time: Samples) -> Samples:
    return roll.standard_normal(len(time)) * 0.4


def _silence(roll: np.random.Generator, time: Samples) -> Samples:
    return roll.standard_normal(len(time)) * roll.uniform(0, 0.002)


def _chord(roll: np.random.Generator, time: Samples) -> Samples:
    root_hz = roll.uniform(220, 440)
    return (_sine(root_hz * time) + _sine(root_hz * 1.26 * time) + _sine(root_hz * 1.5 * time)) / 3


def _siren(roll: np.random.Generator, time: Samples) -> Samples:
    """700 Hz, swinging by 250 Hz 1.6 times a second."""
    swing_hz = 1.6
    swing = 250 / (2 * np.pi * swing_hz) * np.cos(2 * np.pi * swing_hz * time + roll.uniform(0, 6))
    return _sine(700 * time - swing)


def _clicks(roll: np.random.Generator, time: Samples) -> Samples:
    wave, click = np.zeros(len(time)), 60
    period = int(roll.uniform(0.12, 0.25) * RATE_HZ)
    for start in range(int(roll.uniform(0.02, 0.1) * RATE_HZ), len(time) - 80, period):
        wave[start : start + click] = roll.standard_normal(click) * np.exp(-np.arange(click) / 15) * 1.5
    return wave


def _beeps(roll: np.random.Generator, length: int, count: int) -> Samples:
    pitch_hz = roll.uniform(500, 1100)
    beep, gap, lead = roll.uniform(0.09, 0.14), roll.uniform(0.12, 0.2), roll.uniform(0.05, 0.2)
    time = np.arange(max(length, _whole_steps(lead + count * (beep + gap) + 0.1))) / RATE_HZ
    phase = time - lead
    index = np.floor(phase / (beep + gap))
    sounding = (phase >= 0) & (index < count) & (phase - index * (beep + gap) < beep)
    return np.where(sounding, _sine(pitch_hz * time), 0.0)


MAKERS: dict[str, Callable[[np.random.Generator, Samples], Samples]] = {
    "rising": _rising,
    "falling": _falling,
    "low": _low,
    "high": _high,
    "noise": _noise,
    "silence": _silence,
    "chord": _chord,
    "siren": _siren,
    "clicks": _clicks,
}
