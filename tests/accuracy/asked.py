"""The held-out items as questions, their shipped media read."""

import numpy as np
import soundfile
from PIL import Image, ImageSequence

from recipes.nano.evaluation import questions
from recipes.nano.evaluation.questions import Question, Turn

from .domain.items import Film, Item, Part, Picture, Sound, Speech, Text


def question(item: Item) -> Question:
    turns = (Turn(tuple(_part(part) for part in turn.parts), turn.answer) for turn in item.turns)
    return Question(item.name, item.name.rpartition("-")[0], item.kind, item.system, tuple(turns))


def _part(part: Part) -> questions.Part:
    match part:
        case Text(text):
            return text
        case Speech() | Sound():
            return questions.Sound(soundfile.read(part.file, dtype="int16")[0])
        case Picture():
            with Image.open(part.file) as picture:
                return questions.Picture(np.array(picture))
        case Film():
            with Image.open(part.file) as film:
                frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
            return questions.Film(np.stack(frames))
