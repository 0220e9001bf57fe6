"""Pictures of coloured shapes: what is on them, how they are drawn, and what is asked about them."""

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from .language import in_words, with_article

SIDE_PIXELS = 128
FORMS = ("circle", "square", "triangle")
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 210, 40),
    "purple": (140, 50, 170),
    "orange": (245, 140, 30),
}
BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128)}
QUARTERS = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    form: str
    colour: str

    def __str__(self) -> str:
        return f"{self.colour} {self.form}"


@dataclass(frozen=True)
class Scene:
    """Shapes in reading order; several shapes never share a form."""

    shapes: tuple[Shape, ...]
    background: str


def scene(roll: Random) -> Scene:
    count = roll.choice([1, 1, 1, 2, 2, 3])
    shapes = tuple(Shape(form, roll.choice(list(COLOURS))) for form in roll.sample(FORMS, count))
    return Scene(shapes, roll.choice(list(BACKGROUNDS)))


def ask_about(roll: Random, shown: Scene) -> tuple[str, str]:
    """A question and its answer."""
    topic = roll.random()
    if topic < 0.4:
        asked = roll.choice(["what do you see", "what is in the picture", "describe the image", "what is this"])
        return asked, f"I see {_listed(shown.shapes)}."
    if topic < 0.6:
        return roll.choice(["how many shapes are there", "how many shapes do you see"]), _count(len(shown.shapes))
    if topic < 0.8:
        shape = roll.choice(shown.shapes)
        asked = roll.choice(["what color is the {}", "which color does the {} have"]).format(shape.form)
        return asked, f"The {shape.form} is {shape.colour}."
    if topic < 0.9:
        form = roll.choice(FORMS)
        present = any(shape.form == form for shape in shown.shapes)
        return f"is there {with_article(form)}", _presence(form, present)
    return "what color is the background", f"The background is {shown.background}."


def _listed(shapes: tuple[Shape, ...]) -> str:
    *others, last = (with_article(str(shape)) for shape in shapes)
    return f"{', '.join(others)} and {last}" if others else last


def _count(shapes: int) -> str:
    return "There is one shape." if shapes == 1 else f"There are {in_words(shapes)} shapes."


def _presence(form: str, present: bool) -> str:
    return f"Yes, there is {with_article(form)}." if present else f"No, there is no {form}."


def draw(roll: Random, shown: Scene) -> Image.Image:
    image = Image.new("RGB", (SIDE_PIXELS, SIDE_PIXELS), tinted(roll, BACKGROUNDS[shown.background]))
    alone = len(shown.shapes) == 1
    for shape, (x, y) in zip(shown.shapes, _places(roll, len(shown.shapes)), strict=True):
        radius = roll.uniform(0.14, 0.24) if alone else roll.uniform(0.11, 0.17)
        colour = tinted(roll, COLOURS[shape.colour])
        draw_shape(image, shape.form, colour, (x * SIDE_PIXELS, y * SIDE_PIXELS), radius * SIDE_PIXELS)
    return image


def _places(roll: Random, count: int) -> list[tuple[float, float]]:
    """Centres in reading order, as shares of the side."""
    if count == 1:
        return [(roll.uniform(0.28, 0.72), roll.uniform(0.28, 0.72))]
    quarters = sorted(roll.sample(QUARTERS, count), key=lambda place: (place[1], place[0]))
    return [(x + roll.uniform(-0.04, 0.04), y + roll.uniform(-0.04, 0.04)) for x, y in quarters]


def tinted(roll: Random, colour: Rgb) -> Rgb:
    red, green, blue = (max(0, min(255, channel + roll.randint(-12, 12))) for channel in colour)
    return red, green, blue


def draw_shape(image: Image.Image, form: str, colour: Rgb, centre: tuple[float, float], radius: float) -> None:
    (x, y), pen = centre, ImageDraw.Draw(image)
    if form == "circle":
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
    elif form == "square":
        half = radius * 0.9
        pen.rectangle([x - half, y - half, x + half, y + half], fill=colour)
    else:
        base = y + radius * 0.85
        pen.polygon([(x, y - radius), (x - radius, base), (x + radius, base)], fill=colour)
