"""How different two sounds are to the ear: their short-time spectra at five resolutions."""

from typing import cast

import torch
from torch import Tensor, nn

from .encoder import RATE_HZ

# (window samples, mel bins); the shortest is for clicks and onsets
_SCALES = ((2048, 96), (1024, 80), (512, 64), (256, 32), (128, 20))
_SPEECH_HZ = 8400.0
# Quieter than this is silence.
_FLOOR = 1e-2
# Slaney's filters have the area one; so loud, their output compares with the magnitudes.
_FILTER_GAIN = 40.0


class SpectralDistance(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_Scale(*scale) for scale in _SCALES)

    def forward(self, sound: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Two (batch, samples) -> the mean distances by log-mel bands, and by all frequencies."""
        by_scale = [cast(tuple[Tensor, Tensor], scale(sound, truth)) for scale in self.scales]
        mel, linear = (torch.stack(distances).mean() for distances in zip(*by_scale, strict=True))
        return mel, linear


class _Scale(nn.Module):
    window: Tensor
    filters: Tensor

    def __init__(self, window_samples: int, mel_bins: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window_samples), persistent=False)
        self.register_buffer("filters", _mel_filters(window_samples, mel_bins), persistent=False)

    def forward(self, sound: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        got, expected = self._magnitudes(sound), self._magnitudes(truth)
        mel = (self._log_mel(got) - self._log_mel(expected)).abs().mean()
        relative = (got - expected).abs().mean() / (expected.mean() + 1e-3)
        by_ratio = (torch.log(got + _FLOOR) - torch.log(expected + _FLOOR)).abs().mean()
        return mel, (relative + by_ratio) / 2

    def _magnitudes(self, samples: Tensor) -> Tensor:
        size = len(self.window)
        spectrum = torch.stft(samples, size, size // 4, window=self.window, return_complex=True)
        return torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-8)

    def _log_mel(self, magnitudes: Tensor) -> Tensor:
        return torch.log(torch.einsum("bft,fm->bmt", magnitudes, self.filters) + _FLOOR)


def _mel_filters(window_samples: int, bins: int) -> Tensor:
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=window_samples // 2 + 1,
        num_mel_filters=bins,
        min_frequency=0.0,
        # So short a window has too few frequencies for narrow bands.
        max_frequency=_SPEECH_HZ if window_samples > 128 else RATE_HZ / 2,
        sampling_rate=RATE_HZ,
        norm="slaney",
        mel_scale="htk",
    )
    return torch.from_numpy(filters).float() * _FILTER_GAIN
