"""What users said before nano answers, as the Talker sees it: ids, and the Thinker's hidden rows of media."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class UserPrompt:
    """Of the user turns alone: ids int64 (n), positions float32 (3, n); media bool (n), true at placeholders, where
    hidden (n, thinker width), the Thinker's rows after its accept layer, count instead of the ids."""

    ids: Tensor
    media: Tensor
    hidden: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Users:
    """A batch of prompts, padded to the longest of their pool; lengths int64 (batch)."""

    ids: Tensor  # int64 (batch, longest)
    media: Tensor  # bool (batch, longest)
    hidden: Tensor  # bfloat16 (batch, longest, thinker width)
    positions: Tensor  # float32 (batch, longest, 3)
    lengths: Tensor


class UserPrompts:
    """Prompts of about one length on the device, drawn at random."""

    def __init__(self, prompts: Sequence[UserPrompt], device: torch.device) -> None:
        self.longest, self.count = max(len(prompt.ids) for prompt in prompts), len(prompts)
        size = (self.count, self.longest)
        self._all = Users(
            ids=torch.zeros(size, dtype=torch.int64, device=device),
            media=torch.zeros(size, dtype=torch.bool, device=device),
            hidden=torch.zeros(*size, prompts[0].hidden.shape[1], dtype=torch.bfloat16, device=device),
            positions=torch.zeros(*size, 3, device=device),
            lengths=torch.tensor([len(prompt.ids) for prompt in prompts], device=device),
        )
        for row, prompt in enumerate(prompts):
            self._fill(row, prompt)

    def _fill(self, row: int, prompt: UserPrompt) -> None:
        length = len(prompt.ids)
        self._all.ids[row, :length], self._all.media[row, :length] = prompt.ids, prompt.media
        self._all.hidden[row, :length] = prompt.hidden.to(torch.bfloat16)
        self._all.positions[row, :length] = prompt.positions.T

    def draw(self, count: int) -> Users:
        rows, held = torch.randint(self.count, (count,), device=self._all.ids.device), self._all
        return Users(held.ids[rows], held.media[rows], held.hidden[rows], held.positions[rows], held.lengths[rows])


def by_length(prompts: Sequence[UserPrompt], device: torch.device) -> list[UserPrompts]:
    """Short and long ones apart, so that few rows are padding."""
    ordered = sorted(prompts, key=lambda prompt: len(prompt.ids))
    middle = len(ordered) // 2
    return [UserPrompts(part, device) for part in (ordered[:middle], ordered[middle:]) if part]
