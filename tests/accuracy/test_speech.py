"""nano's spoken answers through the API: an independent recogniser understands as much of them as was measured."""

from collections.abc import Sequence

import numpy as np
import pytest

from recipes.nano.evaluation.answers import is_right
from recipes.nano.evaluation.by_antiphon import spoken_answers
from recipes.nano.evaluation.measuring import BY_ANTIPHON
from recipes.nano.evaluation.recogniser import Recogniser
from recipes.nano.evaluation.report import Report
from recipes.nano.evaluation.sentences import questions_to_answer_aloud
from recipes.nano.evaluation.speech import RATE_HZ, Speech, SpokenQuestion
from recipes.nano.evaluation.word_errors import word_error_rate

# The first test waits for every answer.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

QUIETEST_RMS, LOUDEST_RMS = 0.03, 0.15
# The same questions, voices and seeds: only where rounding tips a draw is another word said.
TOLERANCE = 0.03


@pytest.fixture(scope="module")
def asked(measured: Report) -> Sequence[SpokenQuestion]:
    """As many as the report counts, which makes them the same."""
    return questions_to_answer_aloud(measured.of_speech(BY_ANTIPHON).sentences)


@pytest.fixture(scope="module")
def spoken(platform_url: str, asked: Sequence[SpokenQuestion]) -> Sequence[Speech]:
    return spoken_answers(platform_url, asked)


def test_transcripts_are_right(asked: Sequence[SpokenQuestion], spoken: Sequence[Speech], measured: Report) -> None:
    each = [(one.question, speech.line.text) for one, speech in zip(asked, spoken, strict=True)]
    wrong = [(question.turns, text) for question, text in each if not is_right(question, text)]
    assert 1 - len(wrong) / len(each) >= measured.of_class("aloud").right_share - TOLERANCE, wrong


def test_every_speech_ends_by_itself(spoken: Sequence[Speech]) -> None:
    endless = {speech.line.text: speech.seconds for speech in spoken if not (speech.ended and speech.seconds > 0.2)}
    assert not endless, f"seconds of speech: {endless}"


def test_every_speech_is_loud_enough_and_not_clipped(spoken: Sequence[Speech]) -> None:
    for speech in spoken:
        assert speech.rate_hz == RATE_HZ
        assert np.abs(speech.samples).max() < 1.0, speech.line
        assert QUIETEST_RMS < np.sqrt(np.mean(speech.samples**2)) < LOUDEST_RMS, speech.line


def test_speech_is_understood_as_well_as_measured(
    spoken: Sequence[Speech], measured: Report, recogniser: Recogniser
) -> None:
    """Against the words that the Thinker wrote."""
    heard = [recogniser.listen(speech.line.text, speech.samples, speech.rate_hz) for speech in spoken]
    rate = word_error_rate(heard)
    misheard = "\n".join(str(one) for one in heard if one.errors)
    expected = measured.of_speech(BY_ANTIPHON).word_error_rate(recogniser.expects)
    assert rate <= expected + TOLERANCE, f"word error rate {rate:.3f}:\n{misheard}"
