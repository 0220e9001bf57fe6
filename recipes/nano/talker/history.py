"""The codes that the Talker reads while it is trained: the true ones, made as unreliable as its own will be."""

import torch
from torch import Tensor

from recipes.nano.model.architecture import CODE_GROUPS, CODEBOOK_SIZE

from .corpus import Batch
from .residuals import Residuals
from .settings import HistorySettings

# How easily a residual level is mistaken: the last ones are close to noise anyway.
NOISE_OF_LEVEL = (0.4, 0.6, 0.8, *(1.0,) * (CODE_GROUPS - 4))


class History:
    """Draws on the device and never asks the host."""

    def __init__(self, residuals: Residuals, settings: HistorySettings, device: torch.device) -> None:
        self._residuals, self._settings = residuals, settings
        self._noise_of_level = torch.tensor(NOISE_OF_LEVEL, device=device)

    def unreliable(self, batch: Batch, own_first: Tensor | None) -> Tensor:
        """int64 (batch, frames, 16); own_first int64 (batch, frames): what the Talker drew, where it was asked."""
        first = self._first_codes(batch.codes[..., 0], own_first)
        codes = torch.cat((first[..., None], self._residual_codes(batch, first)), dim=-1)
        lost = _dice(first) < _of_each(batch, 1.0).square() * self._settings.most_random_frames
        return torch.where(lost[..., None], torch.randint_like(codes, CODEBOOK_SIZE), codes)

    def _first_codes(self, true: Tensor, own: Tensor | None) -> Tensor:
        if own is None:
            return true
        share = torch.rand(len(true), 1, device=true.device) * self._settings.most_own_first_codes
        return torch.where(_dice(true) < share, own, true)

    def _residual_codes(self, batch: Batch, first: Tensor) -> Tensor:
        """int64 (batch, frames, 15): a mistaken first code brings others than the true one's, where some are known."""
        true_first, true = batch.codes[..., 0], batch.codes[..., 1:]
        strange, known = self._residuals.draw(batch.voices, first)
        share = _of_each(batch, self._settings.most_strange_residuals)
        exchanged = ((first != true_first) | (_dice(first) < share)) & known
        codes = torch.where(exchanged[..., None], strange, true)
        noise = _of_each(batch, self._settings.most_noisy_residuals)[..., None] * self._noise_of_level
        return torch.where(_dice(codes) < noise, torch.randint_like(codes, CODEBOOK_SIZE), codes)


def _of_each(batch: Batch, most: float) -> Tensor:
    """(batch, 1): a share of its own for every utterance, from none to `most`."""
    return torch.rand(len(batch.codes), 1, device=batch.codes.device) * most


def _dice(like: Tensor) -> Tensor:
    return torch.rand(like.shape, device=like.device)
