"""nano's spoken answers through the API: an independent recogniser understands as much of them as was measured."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pytest

from recipes.nano.evaluation.recogniser import Recogniser
from recipes.nano.evaluation.word_errors import word_error_rate
from tests.accuracy.asking import Spoken, spoken_answers
from tests.accuracy.domain.held_out import items_to_speak

# The first test waits for every answer.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

VOICES = ("ethan", "chelsie", "aiden")
RATE_HZ = 24_000
MEASURED_WORD_ERROR_RATE = 0.47
# The longest answer of the items takes transformers 4.1 s; speech that does not end goes on for minutes.
LONGEST_SECONDS = 8.0
QUIETEST_RMS, LOUDEST_RMS = 0.03, 0.15


@pytest.fixture(scope="module")
def spoken(platform_url: str) -> Mapping[str, Spoken]:
    turns = zip(items_to_speak(), cycle(VOICES), range(len(items_to_speak())), strict=False)
    return spoken_answers(platform_url, list(turns))


def test_transcripts_are_right(spoken: Mapping[str, Spoken]) -> None:
    wrong = {
        item.asked: spoken[item.name].transcript
        for item in items_to_speak()
        if spoken[item.name].transcript.strip() != item.expected
    }
    assert len(wrong) <= 1, f"asked: answered {wrong}"


def test_every_speech_ends_by_itself(spoken: Mapping[str, Spoken]) -> None:
    endless = {name: one.seconds for name, one in spoken.items() if not 0.2 < one.seconds < LONGEST_SECONDS}
    assert not endless, f"seconds of speech: {endless}"
    assert {one.finish_reason for one in spoken.values()} == {"stop"}


def test_every_speech_is_loud_enough_and_not_clipped(spoken: Mapping[str, Spoken]) -> None:
    for name, one in spoken.items():
        assert one.rate_hz == RATE_HZ
        assert np.abs(one.samples).max() < 1.0, name
        assert QUIETEST_RMS < np.sqrt(np.mean(one.samples**2)) < LOUDEST_RMS, name


def test_speech_is_understood_as_well_as_measured(spoken: Mapping[str, Spoken], recogniser: Recogniser) -> None:
    """Against the words that the Thinker wrote, as EVAL.md counts: 3 answers of the domain to 1 random phrase."""
    heard = [recogniser.listen(one.transcript, one.samples, one.rate_hz) for one in spoken.values()]
    rate = word_error_rate(heard)
    misheard = "\n".join(str(one) for one in heard if one.errors)
    assert rate <= MEASURED_WORD_ERROR_RATE, f"word error rate {rate:.3f}:\n{misheard}"
