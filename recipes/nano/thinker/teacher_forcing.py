"""How often the Thinker would answer right: every token of a held-out answer the likeliest after the true ones before.

Equal to greedy answers being right: a greedy answer leaves the true one at the first token that is not the likeliest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.nano.domain.conversations import Class
from recipes.nano.thinker.examples import Examples
from recipes.nano.thinker.losses import right_answers
from recipes.nano.thinker.reading import Reader


@dataclass(frozen=True)
class Score:
    right: int
    asked: int

    @property
    def share(self) -> float:
        return self.right / self.asked


@torch.no_grad()
def scores(reader: Reader, examples: Examples, at_once: int = 64) -> Mapping[Class, Score]:
    """Of every class that has conversations."""
    asked = {of_class: rows for of_class, rows in examples.classes.items() if len(rows)}
    return {
        of_class: Score(_right(reader, examples, of_class, rows, at_once), len(rows))
        for of_class, rows in asked.items()
    }


def _right(reader: Reader, examples: Examples, of_class: Class, rows: Tensor, at_once: int) -> int:
    right = 0
    for start in range(0, len(rows), at_once):
        batch = examples.batch({of_class: rows[start : start + at_once]})
        right += int(right_answers(reader.read(batch).logits, batch).sum())
    return right
