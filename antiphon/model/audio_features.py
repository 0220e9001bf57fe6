"""Sound to log-mel frames exactly as transformers' WhisperFeatureExtractor gives them, whole or as the samples arrive.

Frame i looks at 400 samples around sample 160 i; the sound is mirrored beyond its ends. Everything quieter than 80 dB
below the loudest frame is clamped, so scaled frames are final only when the sound has ended.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160
FFT_SAMPLES = 400
FRAMES_PER_SECOND = SAMPLE_RATE_HZ // HOP_SAMPLES
_HALF = FFT_SAMPLES // 2
# Mirroring half a window needs one sample more than half a window.
MIN_SAMPLES = _HALF + 1
# Tokens of one second (100 frames).
_TOKENS_PER_SECOND = 13
_RANGE_DECADES = 8.0
_SILENCE = 1e-10
# Frames whose spectra are held at one time: a minute's.
_FRAMES_AT_ONCE = 6_000
_SLANEY_BREAK_HZ, _SLANEY_BREAK_MEL, _SLANEY_STEP = 1000.0, 15.0, np.log(6.4) / 27.0


def frame_counts(sample_counts: Sequence[int], longest: int = 0) -> list[int]:
    """Mel frames of the sounds of one request, which are padded to the longest before the transform; `longest` are its
    samples when it is not among these.

    A shorter sound that does not end on a hop therefore has one frame more than it would have alone.
    """
    most_frames = max(longest, *sample_counts, 0) // HOP_SAMPLES
    return [min(-(-count // HOP_SAMPLES), most_frames) for count in sample_counts]


def heard_samples(sample_count: int, longest: int) -> int:
    """How far a sound is padded towards the longest of its request: no further than a frame can still hear the sound.
    Of a sound's frames this is all that depends on others."""
    return min(longest, sample_count + FFT_SAMPLES + HOP_SAMPLES)


def token_count(frames: int) -> int:
    """Encoder rows of so many mel frames: 13 a second, and three halvings of what is left."""
    seconds, rest = divmod(frames, FRAMES_PER_SECOND)
    for _ in range(3):
        rest = (rest + 1) // 2
    return seconds * _TOKENS_PER_SECOND + rest


def log_mel(sounds: Sequence[NDArray[np.float32]], mel_bins: int = 128, longest: int = 0) -> list[Tensor]:
    """All sounds of one request, 16 kHz, one channel -> float32 (mel_bins, frames) each; or some of them, with the
    samples of the longest.

    That one must have at least MIN_SAMPLES. Sounds of different requests must not share a call.
    """
    lengths = [len(sound) for sound in sounds]
    longest = max(longest, *lengths, 0)
    frames = zip(sounds, frame_counts(lengths, longest), strict=True)
    return [_log_mel_beside(sound, longest, mel_bins)[:, :count] for sound, count in frames]


def scaled(raw: Tensor, loudest: Tensor) -> Tensor:
    """Raw log10 frames, clamped below the loudest value of the whole sound and brought to the model's range."""
    return (torch.maximum(raw, loudest - _RANGE_DECADES) + 4.0) / 4.0


class StreamingLogMel:
    """Raw log10 frames of one sound as its samples arrive; `scaled` makes them final once `loudest` is.

    Equal to `log_mel` of the sound alone.
    """

    def __init__(self, mel_bins: int = 128) -> None:
        self._mel_bins = mel_bins
        self._samples = torch.empty(0)
        # Sample number of `_samples[0]`; what no later frame can see is dropped.
        self._first_sample = 0
        self.frame_count = 0
        self.loudest = torch.tensor(-torch.inf)

    @property
    def sample_count(self) -> int:
        return self._first_sample + len(self._samples)

    def push(self, samples: NDArray[np.float32]) -> Tensor:
        """(mel_bins, new frames): those whose samples have all arrived."""
        self._samples = torch.cat([self._samples, torch.from_numpy(np.asarray(samples, np.float32))])
        if self.sample_count < MIN_SAMPLES:
            return torch.empty(self._mel_bins, 0)
        return self._advance((self.sample_count - _HALF) // HOP_SAMPLES + 1)

    def finish(self) -> Tensor:
        """The last frames, which see the mirrored end. The sound must have at least MIN_SAMPLES."""
        return self._advance(self.sample_count // HOP_SAMPLES)

    def _advance(self, frames: int) -> Tensor:
        if frames <= self.frame_count:
            return torch.empty(self._mel_bins, 0)
        start = self.frame_count * HOP_SAMPLES - _HALF - self._first_sample
        stop = (frames - 1) * HOP_SAMPLES + _HALF - self._first_sample
        raw = _raw_log_mel(self._mirrored(start, stop), self._mel_bins)
        self.frame_count = frames
        self.loudest = torch.maximum(self.loudest, raw.max())
        self._forget()
        return raw

    def _mirrored(self, start: int, stop: int) -> Tensor:
        samples, end = self._samples, len(self._samples)
        before = samples[1 : 1 - start].flip(0) if start < 0 else samples[:0]
        after = samples[end - 1 - (stop - end) : end - 1].flip(0) if stop > end else samples[:0]
        return torch.cat([before, samples[max(start, 0) : stop], after])

    def _forget(self) -> None:
        # The end mirrors up to half a window, counted back from the last sample, which is at least the newest here.
        seen_from = min(self.frame_count * HOP_SAMPLES - _HALF, self.sample_count - MIN_SAMPLES) - self._first_sample
        if seen_from > 0:
            self._samples = self._samples[seen_from:].clone()
            self._first_sample += seen_from


def _log_mel_beside(sound: NDArray[np.float32], longest: int, mel_bins: int) -> Tensor:
    """Frames of a sound padded with zeros towards `longest`."""
    padded = heard_samples(len(sound), longest)
    samples = functional.pad(torch.from_numpy(np.asarray(sound, np.float32)), (0, padded - len(sound)))
    mirrored = functional.pad(samples[None], (_HALF, _HALF), mode="reflect")[0]
    raw = _raw_log_mel(mirrored, mel_bins)[:, : padded // HOP_SAMPLES]
    return scaled(raw, raw.max())


def _raw_log_mel(samples: Tensor, mel_bins: int) -> Tensor:
    """log10 of the mel energies of every whole window in `samples`: (mel_bins, frames). A frame sees its own window
    only, so a long sound goes part by part: its spectra take ten times what its frames do."""
    frames = (len(samples) - FFT_SAMPLES) // HOP_SAMPLES + 1
    logarithms = torch.empty(mel_bins, frames)
    for first in range(0, frames, _FRAMES_AT_ONCE):
        stop = min(first + _FRAMES_AT_ONCE, frames)
        part = samples[first * HOP_SAMPLES : (stop - 1) * HOP_SAMPLES + FFT_SAMPLES]
        logarithms[:, first:stop] = _log_mel_part(part, mel_bins)
    return logarithms


def _log_mel_part(samples: Tensor, mel_bins: int) -> Tensor:
    window = torch.hann_window(FFT_SAMPLES)
    spectrum = torch.stft(samples, FFT_SAMPLES, HOP_SAMPLES, window=window, center=False, return_complex=True)
    real, imaginary = torch.view_as_real(spectrum).unbind(-1)
    # A third of the time of its absolute value squared.
    powers = real.square().addcmul_(imaginary, imaginary)
    energies = _mel_filters(mel_bins) @ powers
    return energies.clamp(min=_SILENCE).log10()


@cache
def _mel_filters(mel_bins: int) -> Tensor:
    """(mel_bins, frequencies): triangles of equal area between 0 and 8 kHz on Slaney's mel scale."""
    top_mel = _SLANEY_BREAK_MEL + np.log(SAMPLE_RATE_HZ / 2 / _SLANEY_BREAK_HZ) / _SLANEY_STEP
    edges = _slaney_hz(np.linspace(0.0, top_mel, mel_bins + 2))
    frequencies = np.linspace(0.0, SAMPLE_RATE_HZ // 2, FFT_SAMPLES // 2 + 1)
    slopes = edges[None, :] - frequencies[:, None]
    widths = np.diff(edges)
    rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))
    return torch.from_numpy(triangles.T.astype(np.float32))


def _slaney_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear up to 1 kHz, logarithmic above."""
    linear = 200.0 * mels / 3.0
    logarithmic = _SLANEY_BREAK_HZ * np.exp(_SLANEY_STEP * (mels - _SLANEY_BREAK_MEL))
    return np.where(mels >= _SLANEY_BREAK_MEL, logarithmic, linear)
