"""The encoder: 24 kHz sound to one latent vector a frame of 80 ms, by convolutions over a log-mel spectrogram."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RATE_HZ = 24_000
_WINDOW_SAMPLES, _STEP_SAMPLES = 1024, 240
_TOP_HZ = 8400.0
# Quieter than this is silence; keeps the logarithm, and its gradient, in bounds.
_FLOOR = 1e-3


@dataclass(frozen=True)
class EncoderShape:
    mel_bins: int = 96
    channels: int = 256
    latent_width: int = 64
    # Each doubles the step of the spectrogram: 240 samples to 1920.
    halvings: int = 3

    @property
    def samples_per_frame(self) -> int:
        return self.steps_per_frame * _STEP_SAMPLES

    @property
    def steps_per_frame(self) -> int:
        return int(2**self.halvings)


class Encoder(nn.Module):
    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.spectrogram = LogMel(shape.mel_bins)
        self.opening = nn.Conv1d(shape.mel_bins, shape.channels, 5, padding=2)
        self.first = Residual(shape.channels)
        self.halvings = nn.ModuleList(Halving(shape.channels) for _ in range(shape.halvings))
        self.norm = nn.LayerNorm(shape.channels)
        self.latent = nn.Linear(shape.channels, shape.latent_width)

    def forward(self, samples: Tensor) -> Tensor:
        """(batch, samples) in -1…1 -> (batch, frames, latent width); a frame begun but not whole is left out."""
        frame_count = samples.shape[-1] // self.shape.samples_per_frame
        steps = self.spectrogram(samples)[..., : frame_count * self.shape.steps_per_frame]
        hidden = self.first(self.opening(steps))
        for halving in self.halvings:
            hidden = halving(hidden)
        return cast(Tensor, self.latent(self.norm(hidden.transpose(1, 2))))


class LogMel(nn.Module):
    """Nothing to learn: short-time magnitudes, summed by mel filters, as natural logarithms."""

    window: Tensor
    filters: Tensor

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(_WINDOW_SAMPLES), persistent=False)
        self.register_buffer("filters", _mel_filters(bins), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """(batch, samples) -> (batch, bins, steps)"""
        spectrum = torch.stft(samples, _WINDOW_SAMPLES, _STEP_SAMPLES, window=self.window, return_complex=True)
        magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)
        return torch.log(torch.einsum("bft,fm->bmt", magnitude, self.filters) + _FLOOR)


class Halving(nn.Module):
    """Half as many steps, then two residual layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shorter = nn.Conv1d(channels, channels, 4, stride=2, padding=1)
        self.residuals = nn.Sequential(Residual(channels), Residual(channels))

    def forward(self, hidden: Tensor) -> Tensor:
        return cast(Tensor, self.residuals(self.shorter(F.gelu(hidden))))


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.around = nn.Conv1d(channels, channels, 3, padding=1)
        self.across = nn.Conv1d(channels, channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + cast(Tensor, self.across(F.gelu(self.around(F.gelu(hidden)))))


def _mel_filters(bins: int) -> Tensor:
    """(frequencies, bins): triangles on the HTK mel scale, each of height one."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=_WINDOW_SAMPLES // 2 + 1,
        num_mel_filters=bins,
        min_frequency=0.0,
        max_frequency=_TOP_HZ,
        sampling_rate=RATE_HZ,
        mel_scale="htk",
    )
    return torch.from_numpy(filters).float()
