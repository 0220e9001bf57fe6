"""Conversations as tensors on the device, and batches of them: so many of each class, always in the same shapes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.nano.domain.conversations import Class
from recipes.nano.model.audio_tower import CHUNK_TOKENS
from recipes.nano.thinker.layout import FILM_TOKENS, PICTURE_TOKENS
from recipes.nano.thinker.media import Banks


@dataclass(frozen=True)
class Batch:
    """B conversations of L tokens.

    `sound_rows` and `sight_rows` say which of the encoders' rows stands where, -1 for none: of all sounds one after
    another, of all pictures and then of all films.
    """

    ids: Tensor  # int64 (B, L)
    learnt: Tensor  # bool (B, L)
    last_answers: Tensor  # int64 (B): where the last answer begins
    positions: Tensor  # float32 (3, B, L)
    sound_rows: Tensor  # int64 (B, L)
    sight_rows: Tensor  # int64 (B, L)
    # Their numbers in the banks, int64 (n).
    sounds: Tensor
    pictures: Tensor
    films: Tensor


@dataclass(frozen=True)
class Room:
    """Media that a conversation of one class may bring; each takes so much room, whether it needs it or not."""

    sounds: int
    pictures: int
    films: int


@dataclass(frozen=True)
class Examples:
    """N conversations that fit into L tokens. `sound_rows` and `sight_rows` count within a conversation's own media."""

    classes: Mapping[Class, Tensor]  # int64 (n): which conversations are of a class
    rooms: Mapping[Class, Room]
    ids: Tensor  # int64 (N, L)
    learnt: Tensor  # bool (N, L)
    last_answers: Tensor  # int64 (N)
    positions: Tensor  # float32 (N, 3, L)
    sound_rows: Tensor  # int64 (N, L)
    sight_rows: Tensor  # int64 (N, L)
    # Numbers in the banks, int64 (N, most of one conversation), 0 where there are less.
    sounds: Tensor
    pictures: Tensor
    films: Tensor
    longest_sound_seconds: int
    banks: Banks

    def batch(self, chosen: Mapping[Class, Tensor]) -> Batch:
        """chosen: int64 (n) conversations of each class, one class after another in the batch."""
        numbers, rooms = list(chosen.values()), [self.rooms[of_class] for of_class in chosen]
        rows = torch.cat(numbers)
        sound_starts, sight_starts = self._starts([len(of_class) for of_class in numbers], rooms)
        groups = list(zip(numbers, rooms, strict=True))
        return Batch(
            ids=self.ids[rows],
            learnt=self.learnt[rows],
            last_answers=self.last_answers[rows],
            positions=self.positions[rows].transpose(0, 1).contiguous(),
            sound_rows=_shifted(self.sound_rows[rows], sound_starts),
            sight_rows=_shifted(self.sight_rows[rows], sight_starts),
            sounds=torch.cat([self.sounds[of_class, : room.sounds].flatten() for of_class, room in groups]),
            pictures=torch.cat([self.pictures[of_class, : room.pictures].flatten() for of_class, room in groups]),
            films=torch.cat([self.films[of_class, : room.films].flatten() for of_class, room in groups]),
        )

    def _starts(self, counts: Sequence[int], rooms: Sequence[Room]) -> tuple[Tensor, Tensor]:
        """int64 (B) each: the first of the encoders' rows that is a conversation's own, of sounds and of sights."""
        per_sound = self.longest_sound_seconds * CHUNK_TOKENS
        of_pictures = [room.pictures * PICTURE_TOKENS for room in rooms]
        of_films = [room.films * FILM_TOKENS for room in rooms]
        all_pictures = sum(count * size for count, size in zip(counts, of_pictures, strict=True))
        device = self.ids.device
        sounds = _counted(counts, [room.sounds * per_sound for room in rooms], 0, device)
        pictures = _counted(counts, of_pictures, 0, device)
        films = _counted(counts, of_films, all_pictures, device)
        sights = [film if room.films else picture for room, picture, film in zip(rooms, pictures, films, strict=True)]
        return torch.cat(sounds), torch.cat(sights)


def _counted(counts: Sequence[int], steps: Sequence[int], first: int, device: torch.device) -> list[Tensor]:
    """For each class int64 (count): where its conversations' rows begin, so many rows apart."""
    starts = []
    for count, step in zip(counts, steps, strict=True):
        starts.append(first + step * torch.arange(count, device=device))
        first += count * step
    return starts


def _shifted(rows: Tensor, starts: Tensor) -> Tensor:
    return rows + starts[:, None] * (rows >= 0)
