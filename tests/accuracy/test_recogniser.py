"""The recogniser itself is to be trusted: it understands clear speech, and does not guess the rest."""

import numpy as np
import soundfile

from recipes.nano.evaluation.recogniser import Recogniser
from recipes.nano.evaluation.word_errors import Heard, word_error_rate
from tests.accuracy.domain.held_out import readings
from tests.accuracy.domain.items import Reading

# Of 97 words by flite itself; who expects them in any order hears "a" and "an" badly.
MOST_ERRORS = {"nano's sentences": 0.08, "any order": 0.25}


def listen(recogniser: Recogniser, reading: Reading, said: str | None = None) -> Heard:
    samples, rate_hz = soundfile.read(reading.file, dtype="float32")
    return recogniser.listen(said or reading.words, samples, rate_hz)


def test_clear_speech_is_understood(recogniser: Recogniser) -> None:
    heard = [listen(recogniser, reading) for reading in readings()]
    misheard = [str(one) for one in heard if one.errors]
    assert word_error_rate(heard) <= MOST_ERRORS[recogniser.expects], misheard


def test_other_words_are_errors(recogniser: Recogniser) -> None:
    others = (*readings()[1:], readings()[0])
    heard = [listen(recogniser, reading, other.words) for reading, other in zip(readings(), others, strict=True)]
    assert word_error_rate(heard) > 0.8


def test_speech_played_backwards_is_not_understood(recogniser: Recogniser) -> None:
    heard = []
    for reading in readings():
        samples, rate_hz = soundfile.read(reading.file, dtype="float32")
        heard.append(recogniser.listen(reading.words, samples[::-1].copy(), rate_hz))
    assert word_error_rate(heard) > 0.8


def test_an_utterance_is_heard_alike_after_any_other(recogniser: Recogniser) -> None:
    first, second = readings()[0], readings()[1]
    alone = listen(recogniser, first)
    listen(recogniser, second)
    assert listen(recogniser, first) == alone


def test_silence_has_no_words(recogniser: Recogniser) -> None:
    heard = recogniser.listen("hello", np.zeros(16_000, np.float32), 16_000)
    assert heard.errors == 1
