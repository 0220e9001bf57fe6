"""What a microphone does to a sound, and what keeps the encoder from leaning on single frames: only while training."""

import math
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Augmentation(BaseModel):
    """How much of it. Drawn from torch's global generator, which a CUDA graph may contain."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    softest_db: Annotated[float, Field(ge=-60.0, le=0.0)] = -10.0
    loudest_db: Annotated[float, Field(ge=0.0, le=20.0)] = 6.0
    noisy_share: Share = 0.6
    # Of the sound's own root mean square; drawn with a bias towards none.
    most_noise: Share = 0.09
    # SpecAugment (Park et al., 2019): one stretch of time and one band of mel bins.
    most_masked_frames: Annotated[int, Field(ge=0, le=100)] = 12
    most_masked_bins: Annotated[int, Field(ge=0, le=64)] = 16

    def of_samples(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """samples (sounds, longest) in -1…1, lengths (sounds,) -> the same shape, louder or softer, with noise."""
        decibels, noise_share, is_noisy = torch.rand(3, len(samples), 1, device=samples.device).unbind()
        decibels = self.softest_db + decibels * (self.loudest_db - self.softest_db)
        gain = (decibels / 20.0 * math.log(10.0)).exp()
        share = self.most_noise * noise_share.pow(3) * (is_noisy < self.noisy_share)
        loudness = (samples.square().sum(dim=1, keepdim=True) / lengths[:, None]).sqrt()
        within = torch.arange(samples.shape[1], device=samples.device) < lengths[:, None]
        noise = torch.randn_like(samples) * loudness * share * within
        return ((samples + noise) * gain).clamp(-1.0, 1.0)

    def of_frames(self, frames: Tensor) -> Tensor:
        """frames (sounds, bins, steps) -> the same, with a stretch and a band of zeros."""
        stretch = _masked(len(frames), frames.shape[2], self.most_masked_frames, frames.device)
        band = _masked(len(frames), frames.shape[1], self.most_masked_bins, frames.device)
        return frames * ~stretch[:, None, :] * ~band[:, :, None]


def _masked(count: int, size: int, most: int, device: torch.device) -> Tensor:
    """(count, size): true in one stretch of up to `most`, anywhere."""
    start, length = torch.rand(2, count, 1, device=device).unbind()
    places = torch.arange(size, device=device)
    first = start * size
    return (places >= first) & (places < first + length * most)
