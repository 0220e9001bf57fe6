"""Which residual codes follow a first code in a voice: some frames of each, to stand in for one another."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from recipes.nano.model.architecture import CODE_GROUPS, CODEBOOK_SIZE

from .codes import Codes

# Of each first code in each voice, this many frames are remembered.
REMEMBERED_FRAMES = 64


class Residuals:
    def __init__(self, speech: Iterable[tuple[int, Codes]], seed: int, device: torch.device) -> None:
        """speech: the number of a voice, and frames that it said. Each frame takes a place at random among those of its
        first code, instead of who was there."""
        numbers, spoken = zip(*speech, strict=True)
        voices, codes = np.repeat(numbers, [len(some) for some in spoken]), np.concatenate(spoken)
        places = np.random.default_rng(seed).integers(REMEMBERED_FRAMES, size=len(codes))
        slots = (int(voices.max()) + 1, CODEBOOK_SIZE, REMEMBERED_FRAMES)
        frames, filled = np.zeros((*slots, CODE_GROUPS - 1), np.uint8), np.zeros(slots, bool)
        # numpy puts one frame after the other; on a GPU two of one place could mix.
        frames[voices, codes[:, 0], places] = codes[:, 1:]
        filled[voices, codes[:, 0], places] = True
        self._frames, self._filled = torch.from_numpy(frames).to(device), torch.from_numpy(filled).to(device)

    def draw(self, voices: Tensor, first_codes: Tensor) -> tuple[Tensor, Tensor]:
        """voices int64 (batch), first_codes int64 (batch, frames) -> residual codes int64 (batch, frames, 15) from a
        place at random, and bool (batch, frames): whether a frame was there."""
        slots = torch.randint(REMEMBERED_FRAMES, first_codes.shape, device=first_codes.device)
        places = voices[:, None].expand_as(first_codes), first_codes, slots
        return self._frames[places].long(), self._filled[places]
