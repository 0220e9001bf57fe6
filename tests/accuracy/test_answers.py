"""Through the API nano answers held-out questions as often right as was measured, and word for word as transformers."""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt

import pytest

from recipes.nano.evaluation.answers import ClassFigures
from recipes.nano.evaluation.report import Report
from tests.accuracy import record
from tests.accuracy.domain import held_out
from tests.accuracy.domain.items import Item

# The first test waits for every answer.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# By the names that the report has for them.
CLASSES: Mapping[str, Callable[[], Sequence[Item]]] = {
    "typed": held_out.typed_items,
    "spoken": held_out.spoken_items,
    "transcription": held_out.transcription_items,
    "spoken_memory": held_out.memory_items,
    "image": held_out.image_items,
    "video": held_out.video_items,
    "sound": held_out.sound_items,
}


@pytest.mark.parametrize("of_class", CLASSES)
def test_answers_are_as_often_right_as_measured(answers: Mapping[str, str], measured: Report, of_class: str) -> None:
    items = CLASSES[of_class]()
    wrong = [item for item in items if answers[item.name].strip() != item.expected]
    listed = "\n".join(f"{i.name}: {i.asked} -> {answers[i.name]!r}, expected {i.expected!r}" for i in wrong)
    figures, right = measured.of_class(of_class), len(items) - len(wrong)
    assert right / len(items) >= figures.right_share - chance(right, len(items), figures), listed


def chance(right: int, asked: int, measured: ClassFigures) -> float:
    """By how much two counts of the same skill, of other questions, may differ: two standard errors."""
    share = (right + measured.right_by_transformers + 1) / (asked + measured.asked + 2)
    return 2 * sqrt(share * (1 - share) * (1 / asked + 1 / measured.asked))


@pytest.mark.parametrize("of_class", CLASSES)
def test_answers_are_those_of_transformers(answers: Mapping[str, str], of_class: str) -> None:
    """Also where it is wrong; the closest call in the recording is 0.07 apart in logits, far above rounding."""
    recorded = record.load()
    differing = {
        item.name: (answers[item.name], recorded[item.name].transformers)
        for item in CLASSES[of_class]()
        if answers[item.name] != recorded[item.name].transformers
    }
    assert not differing, f"(Antiphon, transformers): {differing}"
