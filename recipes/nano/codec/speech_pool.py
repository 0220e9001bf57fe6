"""All of the training speech in one tensor on the training device, and random pieces of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from recipes.nano.errors import RecipeError
from recipes.nano.speech.store import Utterance

from .encoder import RATE_HZ
from .phones import Spellings, phones_of

# Silence between utterances: a piece may hold the end of one and the beginning of the next.
_GAP_SAMPLES = RATE_HZ // 20


@dataclass(frozen=True)
class SpeechPool:
    """`samples` int16 (samples,); `starts` and `lengths` int64 (utterances,)."""

    samples: Tensor
    starts: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, utterances: Sequence[Utterance], device: torch.device) -> Self:
        """Raises RecipeError where there are none."""
        if not utterances:
            raise RecipeError("There is no speech to train the codec on: run the stage `speech` first.")
        gap = torch.zeros(_GAP_SAMPLES, dtype=torch.int16)
        pieces = [piece for one in utterances for piece in (torch.from_numpy(one.samples), gap)]
        lengths = torch.tensor([len(one.samples) for one in utterances])
        starts = (lengths + _GAP_SAMPLES).cumsum(0) - lengths - _GAP_SAMPLES
        return cls(torch.cat(pieces).to(device), starts.to(device), lengths.to(device))

    def pieces(self, count: int, sample_count: int) -> Tensor:
        """float32 (count, sample_count) in -1…1, from anywhere. Raises RecipeError where all is shorter than that."""
        last = len(self.samples) - sample_count
        if last < 0:
            raise RecipeError(f"Pieces of {sample_count} samples need more speech than {len(self.samples)} samples.")
        # In double precision: single is coarser than a sample after an hour of speech has been read.
        where = torch.rand(count, dtype=torch.float64, device=self.samples.device) * last
        return self._at(where.long()[:, None] + self._steps(sample_count))

    def whole(self, chosen: Tensor, sample_count: int) -> Tensor:
        """chosen int64 (count,) -> float32 (count, sample_count) in -1…1: whole utterances with silence after them."""
        steps = self._steps(sample_count)
        places = (self.starts[chosen, None] + steps).clamp(max=len(self.samples) - 1)
        return self._at(places) * (steps < self.lengths[chosen, None])

    def _at(self, places: Tensor) -> Tensor:
        return self.samples[places].float() / 32768

    def _steps(self, count: int) -> Tensor:
        return torch.arange(count, device=self.samples.device)


@dataclass(frozen=True)
class Readings:
    """The utterances of a pool that are short enough and whose every word is in the dictionary, with their phones.

    `utterances` int64 (readings,) says where each stands in the pool; of `phones` int64 (readings, longest) the first
    `phone_counts` int64 (readings,) count.
    """

    utterances: Tensor
    phones: Tensor
    phone_counts: Tensor

    @classmethod
    def of(cls, spoken: Iterable[Utterance], known: Spellings, most_samples: int, device: torch.device) -> Self:
        """Raises RecipeError where no utterance is short and known enough."""
        short = ((index, one.text) for index, one in enumerate(spoken) if len(one.samples) <= most_samples)
        read = [(index, phones) for index, text in short if (phones := phones_of(text, known))]
        if not read:
            raise RecipeError(f"No utterance of at most {most_samples} samples has all its words in the dictionary.")
        rows = [torch.tensor(phones) for _, phones in read]
        return cls(
            torch.tensor([index for index, _ in read], device=device),
            torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device),
            torch.tensor([len(row) for row in rows], device=device),
        )
