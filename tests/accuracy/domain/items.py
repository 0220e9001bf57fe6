"""What a test item is: a short conversation whose last answer is known."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recipes.nano.domain.films import Motion
from recipes.nano.domain.pictures import Scene

DATA = Path(__file__).parent.parent / "data"


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Speech:
    name: str
    words: str
    voice: str

    @property
    def file(self) -> Path:
        return DATA / "speech" / f"{self.name}.flac"


@dataclass(frozen=True)
class Reading:
    """An answer read aloud by the synthesiser as it is: the recogniser's own test."""

    name: str
    words: str
    voice: str

    @property
    def file(self) -> Path:
        return DATA / "readings" / f"{self.name}.flac"


@dataclass(frozen=True)
class Sound:
    name: str
    kind: str

    @property
    def file(self) -> Path:
        return DATA / "sounds" / f"{self.name}.flac"


@dataclass(frozen=True)
class Picture:
    """Drawn with the numbers of its seed, or else of its name."""

    name: str
    scene: Scene
    seed: int | None = None

    @property
    def file(self) -> Path:
        return DATA / "pictures" / f"{self.name}.png"


@dataclass(frozen=True)
class Film:
    name: str
    motion: Motion

    @property
    def file(self) -> Path:
        return DATA / "films" / f"{self.name}.gif"


Medium = Speech | Sound | Picture | Film
Part = Text | Medium


@dataclass(frozen=True)
class Turn:
    parts: tuple[Part, ...]
    answer: str


@dataclass(frozen=True)
class Item:
    """`kind` is the kind of its last question; the turns before the last are told with their answers."""

    name: str
    kind: str
    system: str | None
    turns: tuple[Turn, ...]

    @property
    def expected(self) -> str:
        return self.turns[-1].answer

    @property
    def media(self) -> Iterator[Medium]:
        for turn in self.turns:
            yield from (part for part in turn.parts if not isinstance(part, Text))

    @property
    def asked(self) -> str:
        """The whole conversation in one readable line."""
        told = [f"[{self.system}]"] if self.system else []
        for turn in self.turns[:-1]:
            told += [_readable(turn), f"({turn.answer})"]
        return " ".join([*told, _readable(self.turns[-1])])


def _readable(turn: Turn) -> str:
    return " + ".join(_described(part) for part in turn.parts)


def _described(part: Part) -> str:
    match part:
        case Text(text):
            return text
        case Speech(_, words, voice):
            return f"<{voice} says: {words}>"
        case Sound(_, kind):
            return f"<{kind}>"
        case Picture(_, scene, _):
            return f"<{', '.join(map(str, scene.shapes))} on {scene.background}>"
        case Film(_, motion):
            return f"<{motion.shape} moves {motion.direction} on {motion.background}>"
