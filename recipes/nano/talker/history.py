"""The codes that the Talker reads while it is trained: the true ones, made as unreliable as its own will be."""

import torch
from torch import Tensor

from .corpus import CODES, LEVELS, Batch, Residuals
from .settings import HistorySettings

# How easily a level is mistaken: the last ones are close to noise anyway.
NOISE_OF_LEVEL = (0.4, 0.6, 0.8, *(1.0,) * (LEVELS - 4))


class History:
    """Makes histories of batches; draws on the device and never asks the host."""

    def __init__(self, residuals: Residuals, settings: HistorySettings, device: torch.device) -> None:
        self._residuals, self._settings = residuals, settings
        self._noise_of_level = torch.tensor(NOISE_OF_LEVEL, device=device)

    def unreliable(self, batch: Batch, own_first: Tensor | None) -> Tensor:
        """int64 (batch, frames, 16); `own_first` int64 (batch, frames) is what the Talker drew, where it was asked."""
        first = self._first_codes(batch.codes[..., 0], own_first)
        mistaken = first != batch.codes[..., 0]
        strange, known = self._residuals.draw(batch.voices, first)
        exchange = mistaken | (_dice(first) < _of_each(batch, self._settings.most_strange_residuals))
        rest = torch.where((exchange & known)[..., None], strange, batch.codes[..., 1:])
        most_noise = _of_each(batch, self._settings.most_noisy_residuals)[..., None] * self._noise_of_level
        rest = torch.where(_dice(rest) < most_noise, torch.randint_like(rest, CODES), rest)
        codes = torch.cat((first[..., None], rest), dim=-1)
        lost = _dice(first) < _of_each(batch, 1.0).square() * self._settings.most_random_frames
        return torch.where(lost[..., None], torch.randint_like(codes, CODES), codes)

    def _first_codes(self, true: Tensor, own: Tensor | None) -> Tensor:
        if own is None:
            return true
        share = torch.rand(len(true), 1, device=true.device) * self._settings.most_own_first_codes
        return torch.where((_dice(true) < share) & (own < CODES), own, true)


def _of_each(batch: Batch, most: float) -> Tensor:
    """(batch, 1): a share of its own for every utterance, from none to `most`."""
    return torch.rand(len(batch.codes), 1, device=batch.codes.device) * most


def _dice(like: Tensor) -> Tensor:
    return torch.rand(like.shape, device=like.device)
