"""Judges whether sound is recorded or decoded, by its complex spectra at three resolutions (arXiv 2210.13438, 3.4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

_WINDOWS_SAMPLES = (1024, 512, 256)
_CHANNELS = 24
_SLOPE = 0.1
# (kernel, stride, dilation) over (steps, frequencies)
_LAYERS = (((3, 7), 1, 1), ((3, 7), 2, 1), ((3, 7), 2, 2), ((3, 5), 2, 4), ((3, 3), 1, 1))


@dataclass(frozen=True)
class Judgement:
    """Of each resolution: scores, positive for recorded, and what every layer saw."""

    scores: Sequence[Tensor]
    features: Sequence[Tensor]


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.resolutions = nn.ModuleList(_Resolution(window) for window in _WINDOWS_SAMPLES)

    def forward(self, samples: Tensor) -> Judgement:
        """(batch, samples)"""
        judged = [cast(tuple[Tensor, list[Tensor]], resolution(samples)) for resolution in self.resolutions]
        return Judgement([scores for scores, _ in judged], [layer for _, layers in judged for layer in layers])

    def judge_without_learning(self, samples: Tensor) -> Judgement:
        """The gradient reaches the samples, not the discriminator: it must not learn to be deceived."""
        fixed = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return cast(Judgement, functional_call(self, fixed, (samples,)))


@dataclass(frozen=True)
class AdversarialLosses:
    """For the discriminator, and for who wants to deceive it."""

    discriminator: Tensor
    deception: Tensor
    # how differently the discriminator's layers see the two sounds, relative to what they see
    features: Tensor


def adversarial_losses(discriminator: Discriminator, decoded: Tensor, recorded: Tensor) -> AdversarialLosses:
    """Hinge losses; one backward of their sum teaches both sides, each only its own."""
    taken_for, truth = discriminator(decoded.detach()), discriminator(recorded)
    margins = [F.relu(1 + score).mean() for score in taken_for.scores]
    margins += [F.relu(1 - score).mean() for score in truth.scores]
    seen = discriminator.judge_without_learning(decoded)
    pairs = zip(seen.features, truth.features, strict=True)
    return AdversarialLosses(
        discriminator=torch.stack(margins).sum() / len(truth.scores),
        deception=-torch.stack([score.mean() for score in seen.scores]).mean(),
        features=torch.stack([_relative(got, expected.detach()) for got, expected in pairs]).mean(),
    )


def _relative(got: Tensor, expected: Tensor) -> Tensor:
    return (got - expected).abs().mean() / (expected.abs().mean() + 1e-3)


class _Resolution(nn.Module):
    window: Tensor

    def __init__(self, window_samples: int) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(window_samples), persistent=False)
        channels = [2] + [_CHANNELS] * len(_LAYERS)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, kernel, (1, stride), _padding(kernel, dilation), (dilation, 1))
            for (before, after), (kernel, stride, dilation) in zip(pairwise(channels), _LAYERS, strict=True)
        )
        self.score = nn.Conv2d(_CHANNELS, 1, 3, padding=1)

    def forward(self, samples: Tensor) -> tuple[Tensor, list[Tensor]]:
        hidden, seen = self._compressed_spectrum(samples), []
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), _SLOPE)
            seen.append(hidden)
        return cast(Tensor, self.score(hidden)), seen

    def _compressed_spectrum(self, samples: Tensor) -> Tensor:
        """(batch, real and imaginary, steps, frequencies), its magnitudes to the power 0.4: quiet parts count, too."""
        size = len(self.window)
        spectrum = torch.stft(samples, size, size // 4, window=self.window, return_complex=True)
        parts = torch.stack([spectrum.real, spectrum.imag], dim=1).transpose(2, 3)
        magnitude = (parts.square().sum(1, keepdim=True) + 1e-7).sqrt()
        return parts / magnitude * (magnitude + 1e-4).pow(0.4)


def _padding(kernel: tuple[int, int], dilation: int) -> tuple[int, int]:
    return dilation * (kernel[0] // 2), kernel[1] // 2
