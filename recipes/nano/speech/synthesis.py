"""One utterance from its text: the many voices that ask at 16 kHz, and the three that nano learns at 24 kHz."""

import numpy as np
import soxr

from recipes.nano.domain.language import training_dice
from recipes.nano.domain.sentences import Line
from recipes.nano.domain.voices import Samples, as_integers, record, say, trimmed

from .store import Utterance

ANSWERS_RATE_HZ = 24_000
ANSWERS_RMS = 0.08
HIGHEST_PEAK = 0.95


Numbered = tuple[int, Line]


def question(line: Numbered) -> Utterance:
    """16 kHz; the number decides speed, pitch, loudness and pauses."""
    number, (text, voice) = line
    return Utterance(text, voice, record(text, voice, training_dice(f"question {number}")))


def answer(line: Numbered) -> Utterance:
    """24 kHz, without the silence around it, and always equally loud, whatever its number."""
    _, (text, voice) = line
    wave, rate_hz = say(text, voice)
    wave = soxr.resample(trimmed(wave, rate_hz), rate_hz, ANSWERS_RATE_HZ)
    return Utterance(text, voice, as_integers(_equally_loud(wave)))


def _equally_loud(wave: Samples) -> Samples:
    loud = wave * (ANSWERS_RMS / (np.sqrt(np.mean(wave**2)) + 1e-6))
    peak = float(np.abs(loud).max())
    quieter: Samples = loud * (HIGHEST_PEAK / peak) if peak > HIGHEST_PEAK else loud
    return quieter
