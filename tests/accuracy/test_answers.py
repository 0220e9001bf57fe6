"""Through the API nano answers held-out questions as often right as was measured, and word for word as transformers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from tests.accuracy import record
from tests.accuracy.domain import held_out
from tests.accuracy.domain.items import Item
from tests.accuracy.domain.measured import measured_image_items

# The first test waits for every answer.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOLERANCE = 0.03


@dataclass(frozen=True)
class Class:
    """`measured` is the share of right answers by plain transformers."""

    name: str
    items: Callable[[], Sequence[Item]]
    measured: float


# The figures of models/nano/EVAL.md, but for `image`: on 800 fresh pictures plain transformers answers 758 right, since
# nano errs on one in four descriptions of three shapes. EVAL.md's own pictures are `measured image`.
CLASSES = (
    Class("typed", held_out.typed_items, 1.00),
    Class("spoken", held_out.spoken_items, 0.95),
    Class("transcription", held_out.transcription_items, 0.96),
    Class("spoken memory", held_out.memory_items, 1.00),
    Class("measured image", measured_image_items, 1.00),
    Class("image", held_out.image_items, 0.9475),
    Class("video", held_out.video_items, 1.00),
    Class("sound", held_out.sound_items, 0.95),
)


@pytest.mark.parametrize("asked", CLASSES, ids=lambda asked: asked.name)
def test_answers_are_as_often_right_as_measured(answers: Mapping[str, str], asked: Class) -> None:
    items = asked.items()
    wrong = [item for item in items if answers[item.name].strip() != item.expected]
    right = 1 - len(wrong) / len(items)
    listed = "\n".join(f"{i.name}: {i.asked} -> {answers[i.name]!r}, expected {i.expected!r}" for i in wrong)
    assert right >= asked.measured - TOLERANCE, f"{right:.3f} of {len(items)} {asked.name} answers are right:\n{listed}"


@pytest.mark.parametrize("asked", CLASSES, ids=lambda asked: asked.name)
def test_answers_are_those_of_transformers(answers: Mapping[str, str], asked: Class) -> None:
    """Also where it is wrong; the closest call in the recording is 0.07 apart in logits, far above rounding."""
    recorded = record.load()
    differing = {
        item.name: (answers[item.name], recorded[item.name].transformers)
        for item in asked.items()
        if answers[item.name] != recorded[item.name].transformers
    }
    assert not differing, f"(Antiphon, transformers): {differing}"
