"""Whose voice it is, told by the shape of its spectra alone: what a recogniser of words does not hear.

Each voice is a normal distribution of mel cepstra over the frames of some sentences that its teacher speaks; an
utterance belongs to the voice under which its frames are likeliest.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import soxr
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from recipes.nano.evaluation.speech import Samples, Speech

RATE_HZ = 16_000
WINDOW_SAMPLES, STEP_SAMPLES = 400, 160
MEL_BINS, CEPSTRA = 40, 20
# Quieter frames, against the loudest of the utterance, have no voice in them.
QUIETEST = 0.03

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Voice:
    mean: Numbers
    precision: Numbers
    log_volume: float

    @classmethod
    def of(cls, frames: Numbers) -> Self:
        covariance = np.cov(frames.T) + 1e-3 * np.eye(frames.shape[1])
        precision = np.linalg.inv(covariance).astype(np.float64)
        return cls(frames.mean(0), precision, float(np.linalg.slogdet(covariance)[1]))

    def likelihood(self, frames: Numbers) -> float:
        """The mean logarithm, but for a constant."""
        apart = frames - self.mean
        return float(-0.5 * (np.einsum("ni,ij,nj->n", apart, self.precision, apart).mean() + self.log_volume))


@dataclass(frozen=True)
class SpeakerEar:
    voices: dict[str, _Voice]

    @classmethod
    def taught_by(cls, speeches: Iterable[Speech]) -> Self:
        frames = defaultdict[str, list[Numbers]](list)
        for speech in speeches:
            frames[speech.line.voice].append(cepstra(speech.samples, speech.rate_hz))
        return cls({name: _Voice.of(np.concatenate(each)) for name, each in frames.items()})

    def who(self, speech: Speech) -> str | None:
        """The likeliest voice; nobody's, where there is next to no sound."""
        frames = cepstra(speech.samples, speech.rate_hz)
        if len(frames) == 0:
            return None
        return max(self.voices, key=lambda name: self.voices[name].likelihood(frames))


def cepstra(samples: Samples, rate_hz: int) -> Numbers:
    """(frames that sound, cepstra), whatever the loudness of the whole."""
    wave = soxr.resample(samples, rate_hz, RATE_HZ)
    if len(wave) < WINDOW_SAMPLES:
        return np.empty((0, CEPSTRA))
    energies = spectrogram(
        wave,
        window_function(WINDOW_SAMPLES, "hann"),
        frame_length=WINDOW_SAMPLES,
        hop_length=STEP_SAMPLES,
        fft_length=512,
        power=2.0,
        mel_filters=mel_filter_bank(257, MEL_BINS, 60.0, 7600.0, RATE_HZ, mel_scale="htk"),
    ).T
    loudness = np.sqrt(energies.sum(1))
    sounding = energies[loudness > QUIETEST * loudness.max()]
    logs = np.log(sounding / sounding.mean() + 1e-6) if len(sounding) else sounding
    return np.asarray(logs @ _cosines(), np.float64)


def _cosines() -> Numbers:
    """(mel bins, cepstra): the cosine transform, without the constant."""
    places = (np.arange(MEL_BINS) + 0.5) * np.pi / MEL_BINS
    cosines: Numbers = np.cos(places[:, None] * np.arange(1, CEPSTRA + 1)) * np.sqrt(2 / MEL_BINS)
    return cosines
