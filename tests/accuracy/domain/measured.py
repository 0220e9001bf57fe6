"""The very pictures, and the questions about them, that the image figure in nano's EVAL.md was measured on."""

import json
from dataclasses import dataclass
from functools import cache

from recipes.nano.domain.pictures import Scene, Shape

from .items import DATA, Item, Picture, Text, Turn

FILE = DATA / "measured_pictures.json"


@dataclass(frozen=True)
class Line:
    """One line of the file: [form, colour] of each shape, and the seed that the picture was drawn with."""

    shapes: list[tuple[str, str]]
    background: str
    seed: int
    system: str | None
    asked: str
    answer: str


@cache
def measured_image_items() -> tuple[Item, ...]:
    lines = [Line(**line) for line in json.loads(FILE.read_text())]
    return tuple(_item(f"measured-{index:03}", line) for index, line in enumerate(lines))


def _item(name: str, line: Line) -> Item:
    scene = Scene(tuple(Shape(form, colour) for form, colour in line.shapes), line.background)
    picture = Picture(f"measured-{line.seed}", scene, line.seed)
    return Item(name, "image", line.system, (Turn((picture, Text(line.asked)), line.answer),))
