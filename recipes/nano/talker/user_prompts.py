"""What users said before nano answers, as the Talker reads it, and batches of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class UserPrompt:
    """The user turns of one conversation. At placeholders of media the hidden row counts instead of the id."""

    ids: Tensor  # int64 (n)
    media: Tensor  # bool (n): is it a placeholder?
    hidden: Tensor  # (n, thinker width): the Thinker's rows after its accept layer
    positions: Tensor  # float32 (3, n)


@dataclass(frozen=True)
class Users:
    """A batch of prompts, padded to the longest of their pool."""

    ids: Tensor  # int64 (batch, longest)
    media: Tensor  # bool (batch, longest)
    hidden: Tensor  # bfloat16 (batch, longest, thinker width)
    positions: Tensor  # float32 (batch, longest, 3)
    lengths: Tensor  # int64 (batch)


class UserPrompts:
    """Prompts of about one length on the device, drawn at random."""

    def __init__(self, prompts: Sequence[UserPrompt], device: torch.device) -> None:
        lengths = [len(prompt.ids) for prompt in prompts]
        size = (len(prompts), max(lengths))
        self.count, self.longest = size
        self._all = Users(
            ids=torch.zeros(size, dtype=torch.int64, device=device),
            media=torch.zeros(size, dtype=torch.bool, device=device),
            hidden=torch.zeros(*size, prompts[0].hidden.shape[1], dtype=torch.bfloat16, device=device),
            positions=torch.zeros(*size, 3, device=device),
            lengths=torch.tensor(lengths, device=device),
        )
        for row, prompt in enumerate(prompts):
            self._fill(row, prompt)

    def draw(self, count: int) -> Users:
        return self.rows(torch.randint(self.count, (count,), device=self._all.ids.device))

    def rows(self, rows: Tensor) -> Users:
        held = self._all
        return Users(held.ids[rows], held.media[rows], held.hidden[rows], held.positions[rows], held.lengths[rows])

    def _fill(self, row: int, prompt: UserPrompt) -> None:
        length = len(prompt.ids)
        self._all.ids[row, :length], self._all.media[row, :length] = prompt.ids, prompt.media
        self._all.hidden[row, :length] = prompt.hidden.to(torch.bfloat16)
        self._all.positions[row, :length] = prompt.positions.T


def by_length(prompts: Sequence[UserPrompt], device: torch.device) -> tuple[UserPrompts, UserPrompts]:
    """The shorter and the longer half, so that few rows are padding; a prompt that is alone is both."""
    ordered = sorted(prompts, key=lambda prompt: len(prompt.ids))
    middle = len(ordered) // 2
    return UserPrompts(ordered[:middle] or ordered, device), UserPrompts(ordered[middle:], device)
