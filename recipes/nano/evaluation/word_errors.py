"""How many words were misheard."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Sentence = tuple[str, ...]


def words_of(text: str) -> Sentence:
    """Lower case, without punctuation."""
    return tuple(re.sub(r"[^a-z' ]", " ", text.lower()).split())


@dataclass(frozen=True)
class Heard:
    """What should have been said and what was understood, as words."""

    said: Sequence[str]
    understood: Sequence[str]

    @property
    def errors(self) -> int:
        return edit_distance(self.said, self.understood)

    def __str__(self) -> str:
        return f"{' '.join(self.said)!r} was understood as {' '.join(self.understood)!r}"


def word_error_rate(heard: Iterable[Heard]) -> float:
    """Errors a word that should have been said; not a number where none should have been."""
    heard = list(heard)
    words = sum(len(one.said) for one in heard)
    return sum(one.errors for one in heard) / words if words else float("nan")


def edit_distance(expected: Sequence[str], got: Sequence[str]) -> int:
    """Fewest words to replace, insert or leave out."""
    costs = list(range(len(got) + 1))
    for row, word in enumerate(expected, start=1):
        before, costs = costs, [row]
        for column, other in enumerate(got, start=1):
            kept = before[column - 1] + (word != other)
            costs.append(min(kept, before[column] + 1, costs[column - 1] + 1))
    return costs[-1]
