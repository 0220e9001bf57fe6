"""Through the API nano answers held-out questions as often right as was measured, and word for word as transformers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from recipes.nano.evaluation.report import Report
from tests.accuracy import record
from tests.accuracy.domain import held_out
from tests.accuracy.domain.items import Item
from tests.accuracy.domain.measured import measured_image_items

# The first test waits for every answer.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOLERANCE = 0.03


@dataclass(frozen=True)
class Class:
    """`measured` is the share of right answers by plain transformers; the report may not fall below it."""

    items: Callable[[], Sequence[Item]]
    measured: float


# By the names that the report has for them. `image`: on 800 fresh pictures plain transformers answers 758 right, since
# nano errs on one in four descriptions of three shapes; `measured image` are those first measured with.
CLASSES: Mapping[str, Class] = {
    "typed": Class(held_out.typed_items, 1.00),
    "spoken": Class(held_out.spoken_items, 0.95),
    "transcription": Class(held_out.transcription_items, 0.96),
    "spoken_memory": Class(held_out.memory_items, 1.00),
    "measured image": Class(measured_image_items, 1.00),
    "image": Class(held_out.image_items, 0.9475),
    "video": Class(held_out.video_items, 1.00),
    "sound": Class(held_out.sound_items, 0.95),
}


@pytest.mark.parametrize("of_class", CLASSES)
def test_answers_are_as_often_right_as_measured(answers: Mapping[str, str], of_class: str) -> None:
    asked = CLASSES[of_class]
    items = asked.items()
    wrong = [item for item in items if answers[item.name].strip() != item.expected]
    right = 1 - len(wrong) / len(items)
    listed = "\n".join(f"{i.name}: {i.asked} -> {answers[i.name]!r}, expected {i.expected!r}" for i in wrong)
    assert right >= asked.measured - TOLERANCE, f"{right:.3f} of {len(items)} {of_class} answers are right:\n{listed}"


@pytest.mark.parametrize("of_class", [name for name in CLASSES if name != "measured image"])
def test_the_report_is_not_below_what_was_measured(measured: Report, of_class: str) -> None:
    assert measured.of_class(of_class).right_share >= CLASSES[of_class].measured - TOLERANCE


@pytest.mark.parametrize("of_class", CLASSES)
def test_answers_are_those_of_transformers(answers: Mapping[str, str], of_class: str) -> None:
    """Also where it is wrong; the closest call in the recording is 0.07 apart in logits, far above rounding."""
    recorded = record.load()
    differing = {
        item.name: (answers[item.name], recorded[item.name].transformers)
        for item in CLASSES[of_class].items()
        if answers[item.name] != recorded[item.name].transformers
    }
    assert not differing, f"(Antiphon, transformers): {differing}"
