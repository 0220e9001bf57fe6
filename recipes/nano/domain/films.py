"""Films of one moving shape: how they are drawn and encoded, and what is asked about them."""

from dataclasses import dataclass
from io import BytesIO
from random import Random

from PIL import Image

from .language import sentence_case, with_article
from .pictures import BACKGROUNDS, COLOURS, FORMS, Shape, draw_shape, tinted

SIDE_PIXELS = 96
FRAMES = 8
FRAME_MILLISECONDS = 500
DIRECTIONS = ("left", "right", "up", "down")


@dataclass(frozen=True)
class Motion:
    shape: Shape
    direction: str
    background: str


def motion(roll: Random) -> Motion:
    shape = Shape(roll.choice(FORMS), roll.choice(list(COLOURS)))
    return Motion(shape, roll.choice(DIRECTIONS), roll.choice(list(BACKGROUNDS)))


def ask_about(roll: Random, shown: Motion) -> tuple[str, str]:
    """A question and its answer."""
    topic, form = roll.random(), shown.shape.form
    if topic < 0.6:
        asked = roll.choice(["what happens in the video", "what do you see", "describe the video"])
        return asked, f"{sentence_case(with_article(str(shown.shape)))} moves {shown.direction}."
    if topic < 0.8:
        asked = roll.choice([f"which way does the {form} move", "which way does it move"])
        return asked, f"The {form} moves {shown.direction}."
    return f"what color is the {form}", f"The {form} is {shown.shape.colour}."


def draw(roll: Random, shown: Motion) -> list[Image.Image]:
    background = tinted(roll, BACKGROUNDS[shown.background])
    colour = tinted(roll, COLOURS[shown.shape.colour])
    radius = roll.uniform(0.13, 0.2)
    start, end, across = roll.uniform(0.2, 0.3), roll.uniform(0.7, 0.8), roll.uniform(0.3, 0.7)
    frames = []
    for index in range(FRAMES):
        along = start + (end - start) * index / (FRAMES - 1)
        x, y = _place(shown.direction, along, across)
        frame = Image.new("RGB", (SIDE_PIXELS, SIDE_PIXELS), background)
        draw_shape(frame, shown.shape.form, colour, (x * SIDE_PIXELS, y * SIDE_PIXELS), radius * SIDE_PIXELS)
        frames.append(frame)
    return frames


def _place(direction: str, along: float, across: float) -> tuple[float, float]:
    places = {"right": (along, across), "left": (1 - along, across), "down": (across, along), "up": (across, 1 - along)}
    return places[direction]


def as_gif(frames: list[Image.Image]) -> bytes:
    """Lossless: two colours are two palette entries."""
    first, *others = frames
    out = BytesIO()
    first.save(out, "GIF", save_all=True, append_images=others, duration=FRAME_MILLISECONDS, loop=0)
    return out.getvalue()
