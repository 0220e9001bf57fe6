"""Laid conversations as tensors of one length, media by their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recipes.nano.domain.conversations import CLASSES, Class, Conversation, Film, Picture, Recording, Sound
from recipes.nano.model.audio_tower import CHUNK_TOKENS
from recipes.nano.thinker.examples import Examples, Room
from recipes.nano.thinker.layout import FILM_TOKENS, Laid
from recipes.nano.thinker.media import Banks, Medium

HEARD, SEEN = (Recording, Sound), (Picture, Film)
_Kinds = type[Medium] | tuple[type[Medium], ...]


@dataclass(frozen=True)
class Page:
    conversation: Conversation
    laid: Laid

    def media(self, kinds: _Kinds) -> list[Medium]:
        return [medium for medium, _ in self.laid.placed if isinstance(medium, kinds)]

    def rows(self, kinds: _Kinds, rows_apart: int) -> Tensor:
        """int64 (tokens): which row of its media of these kinds stands at each token, -1 where none does."""
        rows = torch.full((len(self.laid.ids),), -1)
        placed = [place for medium, place in self.laid.placed if isinstance(medium, kinds)]
        for number, place in enumerate(placed):
            own = torch.arange(place.length)
            rows[place.first : place.first + place.length] = number * rows_apart + own
        return rows


def stacked(
    pages: Sequence[Page], banks: Banks, length: int, padding: int, longest_sound_seconds: int, device: torch.device
) -> Examples:
    """length: of the longest page or more; padding: the id that fills the rest."""

    def stack(rows: Sequence[Tensor], filling: int) -> Tensor:
        return torch.stack([F.pad(row, (0, length - row.shape[-1]), value=filling) for row in rows]).to(device)

    def numbers(kinds: _Kinds) -> Tensor:
        return _numbers([page.media(kinds) for page in pages], banks).to(device)

    laid = [page.laid for page in pages]
    return Examples(
        classes={of_class: _of_class(pages, of_class).to(device) for of_class in CLASSES},
        rooms={of_class: _room(pages, of_class) for of_class in CLASSES},
        ids=stack([torch.from_numpy(one.ids) for one in laid], padding),
        learnt=stack([torch.from_numpy(one.learnt) for one in laid], 0),
        last_answers=torch.tensor([one.last_answer for one in laid], device=device),
        positions=stack([torch.from_numpy(one.positions) for one in laid], 0),
        sound_rows=stack([page.rows(HEARD, longest_sound_seconds * CHUNK_TOKENS) for page in pages], -1),
        sight_rows=stack([page.rows(SEEN, FILM_TOKENS) for page in pages], -1),
        sounds=numbers(HEARD),
        pictures=numbers(Picture),
        films=numbers(Film),
        longest_sound_seconds=longest_sound_seconds,
        banks=banks,
    )


def _of_class(pages: Sequence[Page], of_class: Class) -> Tensor:
    return torch.tensor([row for row, page in enumerate(pages) if page.conversation.of_class == of_class]).long()


def _room(pages: Sequence[Page], of_class: Class) -> Room:
    same = [page for page in pages if page.conversation.of_class == of_class]
    sounds, shown, moving = (
        max((len(page.media(kinds)) for page in same), default=0) for kinds in (HEARD, Picture, Film)
    )
    if shown + moving > 1:
        raise ValueError(
            f"Expected conversations of the class {of_class} to show one picture or one film; one shows more."
        )
    return Room(sounds, shown, moving)


def _numbers(media: Sequence[Sequence[Medium]], banks: Banks) -> Tensor:
    """int64 (conversations, most media of one), 0 where there are less."""
    numbers = torch.zeros(len(media), max(map(len, media)), dtype=torch.int64)
    for row, of_one in zip(numbers, media, strict=True):
        row[: len(of_one)] = torch.tensor([banks.numbers[medium] for medium in of_one], dtype=torch.int64)
    return numbers
