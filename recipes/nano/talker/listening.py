"""Users' prompts as the Talker reads them, from conversations that the Thinker has read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.nano.domain.conversations import Class
from recipes.nano.thinker.examples import Batch, Examples
from recipes.nano.thinker.reading import Reader
from recipes.nano.tokenizer.special_tokens import SpecialTokens

from .user_prompts import UserPrompt

BATCH_SIZE = 16


def evenly(examples: Examples, count: int) -> Mapping[Class, Tensor]:
    """int64 (n) of each class: about `count` conversations in all, in the classes' proportions."""
    apart = max(1, len(examples.ids) // count)
    return {of_class: numbers[::apart] for of_class, numbers in examples.classes.items()}


@dataclass(frozen=True)
class Listener:
    """The Talker reads the user turns alone: neither the system's words nor earlier answers."""

    reader: Reader
    tokens: SpecialTokens
    accept_layer: int
    most_tokens: int

    @torch.no_grad()
    def prompts(self, examples: Examples, chosen: Mapping[Class, Tensor]) -> Iterator[UserPrompt]:
        """One of every chosen conversation whose user turns fit into `most_tokens`."""
        for of_class, numbers in chosen.items():
            for some in torch.split(numbers, BATCH_SIZE):
                if len(some):
                    yield from self._of_batch(examples.batch({of_class: some}))

    def _of_batch(self, batch: Batch) -> Iterator[UserPrompt]:
        kept = self.reader.read(batch, keep_after_layer=self.accept_layer).kept
        if kept is None:
            raise RuntimeError(f"Expected the Thinker's rows after layer {self.accept_layer}; it has fewer layers.")
        media = (batch.sound_rows >= 0) | (batch.sight_rows >= 0)
        for row in range(len(batch.ids)):
            said = self._user_turns(batch.ids[row, : int(batch.last_answers[row])])
            if 0 < len(said) <= self.most_tokens:
                positions = moved_together(batch.positions[:, row, said].cpu(), said.cpu())
                yield UserPrompt(batch.ids[row, said].cpu(), media[row, said].cpu(), kept[row, said].cpu(), positions)

    def _user_turns(self, ids: Tensor) -> Tensor:
        """ids int64 (tokens) before the last answer -> int64 (n): places of those of user turns."""
        places, of_user, before = [], False, ids.tolist()
        for place, (token, following) in enumerate(zip(before, [*before[1:], None], strict=True)):
            if token == self.tokens.im_start:
                of_user = following == self.tokens.user
            if of_user:
                places.append(place)
        return torch.tensor(places, dtype=torch.int64, device=ids.device)


def moved_together(positions: Tensor, places: Tensor) -> Tensor:
    """float32 (3, n): as if the turns, n tokens at int64 (n) places of a conversation, followed one another.

    Every turn begins and ends with text, whose three axes agree.
    """
    moved, start, first = positions.clone(), 0.0, 0
    for end in [*((places.diff() > 1).nonzero().flatten() + 1).tolist(), len(places)]:
        moved[:, first:end] += start - float(positions[0, first])
        start, first = float(moved[0, end - 1]) + 1, end
    return moved
