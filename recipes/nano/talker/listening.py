"""Users' prompts as the Talker reads them, from conversations that the Thinker has read."""

from collections.abc import Iterator, Mapping

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


@torch.no_grad()
def listen(
    reader: Reader,
    examples: Examples,
    chosen: Mapping[Class, Tensor],
    tokens: SpecialTokens,
    accept_layer: int,
    most_tokens: int,
) -> Iterator[UserPrompt]:
    """One prompt of every chosen conversation whose user turns fit into `most_tokens`."""
    for of_class, numbers in chosen.items():
        for some in numbers.split(BATCH_SIZE):
            if len(some):
                batch = examples.batch({of_class: some})
                kept = reader.read(batch, keep_after_layer=accept_layer).kept
                yield from _prompts(batch, kept, tokens, most_tokens)


def _prompts(batch: Batch, kept: Tensor | None, tokens: SpecialTokens, most_tokens: int) -> Iterator[UserPrompt]:
    if kept is None:
        raise RuntimeError("The Thinker was asked for its rows after a layer and gave none.")
    media = (batch.sound_rows >= 0) | (batch.sight_rows >= 0)
    for row in range(len(batch.ids)):
        said = _user_turns(batch, row, tokens)
        if 0 < len(said) <= most_tokens:
            positions = _moved_together(batch.positions[:, row, said].cpu(), said.cpu())
            yield UserPrompt(batch.ids[row, said].cpu(), media[row, said].cpu(), kept[row, said].cpu(), positions)


def _user_turns(batch: Batch, row: int, tokens: SpecialTokens) -> Tensor:
    """int64 (n): places of the tokens of user turns before the last answer. The Talker reads neither the system's words
    nor earlier answers."""
    ids = batch.ids[row, : int(batch.last_answers[row])].tolist()
    places, of_user = [], False
    for place, token in enumerate(ids):
        if token == tokens.im_start and place + 1 < len(ids):
            of_user = ids[place + 1] == tokens.user
        if of_user:
            places.append(place)
    return torch.tensor(places, dtype=torch.int64, device=batch.ids.device)


def _moved_together(positions: Tensor, places: Tensor) -> Tensor:
    """float32 (3, n): as if the turns followed one another. Every turn begins and ends with text, whose three axes agree."""
    moved, start, first = positions.clone(), 0.0, 0
    for end in [*((places.diff() > 1).nonzero().flatten() + 1).tolist(), len(places)]:
        moved[:, first:end] += start - float(positions[0, first])
        start, first = float(moved[0, end - 1]) + 1, end
    return moved
