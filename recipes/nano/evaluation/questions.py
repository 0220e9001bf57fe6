"""What is asked of a checkpoint, free of where its media come from: a short conversation whose last answer is known."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import numpy as np

from recipes.nano.domain import conversations, films, pictures
from recipes.nano.domain.conversations import Conversation, Recording
from recipes.nano.domain.conversations import Sound as SynthesisedSound
from recipes.nano.domain.voices import Integers

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@dataclass(frozen=True, eq=False)
class Sound:
    """16 kHz, one channel, int16."""

    samples: Integers


@dataclass(frozen=True, eq=False)
class Picture:
    """(height, width, 3)"""

    pixels: Pixels


@dataclass(frozen=True, eq=False)
class Film:
    """(frames, height, width, 3), two a second"""

    frames: Pixels


Medium = Sound | Picture | Film
Part = str | Medium


@dataclass(frozen=True, eq=False)
class Turn:
    parts: tuple[Part, ...]
    answer: str


@dataclass(frozen=True, eq=False)
class Question:
    """`kind` is the kind of its last question; the turns before the last are told with their answers."""

    name: str
    of_class: str
    kind: str
    system: str | None
    turns: tuple[Turn, ...]

    @property
    def expected(self) -> str:
        return self.turns[-1].answer

    @property
    def media(self) -> list[Medium]:
        return [part for turn in self.turns for part in turn.parts if not isinstance(part, str)]


def question(name: str, asked: Conversation, heard: Mapping[Recording | SynthesisedSound, Integers]) -> Question:
    turns = (Turn(tuple(_part(part, heard) for part in turn.parts), turn.answer) for turn in asked.turns)
    return Question(name, asked.of_class, asked.kind, asked.system, tuple(turns))


def _part(part: conversations.Part, heard: Mapping[Recording | SynthesisedSound, Integers]) -> Part:
    match part:
        case conversations.Text(text):
            return text
        case Recording() | SynthesisedSound():
            return Sound(heard[part])
        case conversations.Picture(scene, seed):
            return Picture(np.asarray(pictures.draw(_dice(seed), scene)))
        case conversations.Film(motion, seed):
            return Film(np.stack([np.asarray(frame) for frame in films.draw(_dice(seed), motion)]))


def _dice(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - nothing here is secret
