"""Log-mel features of a batch of sounds, on any device: what transformers' Whisper front end gives each alone."""

import torch
from torch import Tensor, nn

RATE_HZ = 16_000
SAMPLES_PER_FRAME = 160
MEL_BINS = 128
WINDOW_SAMPLES = 400
_FREQUENCIES = WINDOW_SAMPLES // 2 + 1
_REACH_SAMPLES = WINDOW_SAMPLES // 2
_FLOOR = 1e-10
# What is a hundred million times weaker than a sound's loudest moment counts as silence.
_RANGE = 8.0


class LogMel(nn.Module):
    """Nothing to learn; a module, so that its window and its filters follow the model to the device."""

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW_SAMPLES), persistent=False)
        self.register_buffer("filters", _mel_filters(), persistent=False)

    def forward(self, samples: Tensor, sample_counts: Tensor) -> Tensor:
        """(batch, 128, longest // 160), zero after each sound's own frames, of which there are sample_counts // 160.

        samples: float (batch, longest) in -1…1 at 16 kHz, packed to the left; sample_counts: int64 (batch,), above 200.
        """
        spectrum = torch.stft(
            _mirrored(samples, sample_counts),
            WINDOW_SAMPLES,
            SAMPLES_PER_FRAME,
            window=self.window,
            center=False,
            return_complex=True,
        )
        frames = samples.shape[1] // SAMPLES_PER_FRAME
        power = spectrum[..., :frames].abs().square()
        energies = torch.einsum("bft,fm->bmt", power, self.filters).clamp(min=_FLOOR).log10()
        inside = _inside(sample_counts // SAMPLES_PER_FRAME, frames)
        return _scaled(energies, inside)


def _mirrored(samples: Tensor, sample_counts: Tensor) -> Tensor:
    """200 more samples on either side, where each sound goes on as its own reflection."""
    longest = samples.shape[1]
    places = torch.arange(-_REACH_SAMPLES, longest + _REACH_SAMPLES, device=samples.device).abs()
    last = (sample_counts - 1)[:, None]
    reflected = torch.where(places <= last, places, 2 * last - places)
    return samples.gather(1, reflected.clamp(min=0))


def _inside(frame_counts: Tensor, frames: int) -> Tensor:
    """bool (batch, 1, frames)"""
    return (torch.arange(frames, device=frame_counts.device) < frame_counts[:, None])[:, None]


def _scaled(energies: Tensor, inside: Tensor) -> Tensor:
    loudest = energies.masked_fill(~inside, -10.0).amax(dim=(1, 2), keepdim=True)
    return (torch.maximum(energies, loudest - _RANGE) + 4.0) / 4.0 * inside


def _mel_filters() -> Tensor:
    """(frequencies, bins): Slaney's triangles, each of the same area."""
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        num_frequency_bins=_FREQUENCIES,
        num_mel_filters=MEL_BINS,
        min_frequency=0.0,
        max_frequency=RATE_HZ / 2,
        sampling_rate=RATE_HZ,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters).float()
