"""Everything that conversations let the Thinker hear and see, on the device that trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

from recipes.nano.domain import films, pictures
from recipes.nano.domain.conversations import Film, Picture, Recording, Sound
from recipes.nano.domain.voices import Integers

Audible = Recording | Sound
Visible = Picture | Film
Medium = Audible | Visible
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


class Sounds:
    """One behind the other, at 16 kHz, as whole numbers."""

    def __init__(self, heard: Sequence[Integers], transcripts: Sequence[Sequence[int]], device: torch.device) -> None:
        """transcripts: the tokens that are said, none where nothing is."""
        counts = torch.tensor([len(samples) for samples in heard])
        self._samples = torch.from_numpy(np.concatenate(heard)).to(device)  # int16 (all samples)
        self._starts = (counts.cumsum(0) - counts).to(device)
        self.lengths = counts.to(device)  # int64 (sounds)
        self.transcripts = _padded(transcripts).to(device)  # int64 (sounds, longest transcript)
        self.transcript_lengths = torch.tensor([len(tokens) for tokens in transcripts], device=device)

    def take(self, chosen: Tensor, longest_samples: int) -> Tensor:
        """chosen int64 (n) -> float32 (n, longest_samples) in -1…1, zero behind each sound's end."""
        within = torch.arange(longest_samples, device=chosen.device)
        places = (self._starts[chosen, None] + within).clamp(max=len(self._samples) - 1)
        return self._samples[places].float() / 32768.0 * (within < self.lengths[chosen, None])


class Sights:
    """Pictures or films, all of one size: uint8 (n, frames, 3, height, width), one frame for a picture."""

    def __init__(self, shown: Sequence[Visible], device: torch.device) -> None:
        drawn = torch.from_numpy(np.stack([_drawn(one) for one in shown])) if shown else torch.empty(0)
        self._frames = drawn.movedim(-1, 2).contiguous().to(device) if shown else drawn

    def take(self, chosen: Tensor) -> Tensor:
        """chosen int64 (n) -> float32 (n, frames, 3, height, width) in -1…1; a picture's frame twice, for a patch."""
        frames = self._frames[chosen].float() / 127.5 - 1.0
        return frames.expand(-1, 2, -1, -1, -1) if frames.shape[1] == 1 else frames


@dataclass(frozen=True)
class Banks:
    """Every medium once; `numbers` says where in the bank of its kind."""

    sounds: Sounds
    pictures: Sights
    films: Sights
    numbers: Mapping[Medium, int]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    padded = torch.zeros(len(rows), max(1, *map(len, rows)), dtype=torch.int64)
    for row, tokens in zip(padded, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
    return padded


def _drawn(shown: Visible) -> Pixels:
    """(frames, height, width, 3)"""
    roll = Random(shown.seed)  # noqa: S311 - nothing here is secret
    match shown:
        case Picture(scene, _):
            return np.stack([np.asarray(pictures.draw(roll, scene))])
        case Film(motion, _):
            return np.stack([np.asarray(frame) for frame in films.draw(roll, motion)])
