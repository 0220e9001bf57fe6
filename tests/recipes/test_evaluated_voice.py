"""The voice that is measured is the checkpoint's: transformers speaks the same, whoever else speaks beside."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recipes.nano.domain.voices import VOICES_TO_LEARN_FROM
from recipes.nano.evaluation.by_transformers import Transformers
from recipes.nano.evaluation.questions import Film, Picture, Question, Sound, Turn
from recipes.nano.evaluation.reading_aloud import Voice, asking_for
from recipes.nano.evaluation.speakers import SpeakerEar
from recipes.nano.evaluation.speech import VOICES, Line, Speech, SpokenQuestion
from recipes.nano.evaluation.transformers_inputs import TransformersInputs
from tests.accuracy.domain.held_out import readings
from tests.reference import reference_inputs as reference

LINES = [
    Line("phrase", "Big pocket.", "ethan", 1),
    Line("phrase", "Green window.", "chelsie", 2),
    Line("phrase", "Seven.", "aiden", 3),
]


@pytest.fixture(scope="module")
def greedy_nano(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano, but that its Talker always takes the likeliest codes."""
    folder = tmp_path_factory.mktemp("greedy") / "nano"
    shutil.copytree(nano, folder, ignore=shutil.ignore_patterns("examples"))
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "talker_do_sample": False}))
    return folder


def said_by(transformers: Transformers, line: Line) -> Speech:
    asked = Question("say", "aloud", "phrase", None, (Turn((asking_for(line.text),), line.text),))
    return transformers.speak(SpokenQuestion(line.kind, asked, line.voice, line.seed))


def test_given_texts_are_spoken_as_transformers_speaks_its_answers(greedy_nano: Path) -> None:
    transformers = Transformers(greedy_nano)
    for spoken in Voice(greedy_nano).speak(LINES):
        expected = said_by(transformers, spoken.line)
        assert expected.line.text == spoken.line.text
        assert np.allclose(spoken.samples, expected.samples, atol=1e-3)
        assert spoken.ended
        assert expected.ended


def test_the_same_lines_are_spoken_the_same(nano: Path) -> None:
    once, again = (Voice(nano).speak(LINES) for _ in range(2))
    assert all(np.array_equal(one.samples, other.samples) for one, other in zip(once, again, strict=True))


def test_another_seed_speaks_otherwise(nano: Path) -> None:
    first, other = Voice(nano).speak([LINES[0], Line("phrase", "Big pocket.", "ethan", 99)])
    assert first.samples.shape != other.samples.shape or not np.allclose(first.samples, other.samples)


def test_speech_that_is_cut_off_has_not_ended(nano: Path) -> None:
    (cut,) = Voice(nano).speak(LINES[:1], most_frames=3)
    assert not cut.ended
    assert cut.seconds < 0.25


def read_aloud() -> list[Speech]:
    names = dict(zip(VOICES.values(), VOICES, strict=True))
    lines = [Line("domain", reading.words, names[reading.voice], 0) for reading in readings()]
    files = [soundfile.read(reading.file, dtype="float32") for reading in readings()]
    return [Speech(line, samples, rate_hz) for line, (samples, rate_hz) in zip(lines, files, strict=True)]


def test_the_ear_tells_voices_by_other_sentences_of_theirs() -> None:
    speeches = read_aloud()
    half = len(speeches) // 2
    assert half >= 4 * len(VOICES_TO_LEARN_FROM)
    ear = SpeakerEar.taught_by(speeches[:half])
    assert [ear.who(speech) for speech in speeches[half:]] == [speech.line.voice for speech in speeches[half:]]


def test_the_ear_hears_nobody_in_nothing() -> None:
    speeches = read_aloud()
    silent = Speech(speeches[0].line, np.zeros(0, np.float32))
    assert SpeakerEar.taught_by(speeches).who(silent) is None


def test_questions_are_told_to_transformers_as_elsewhere(nano: Path) -> None:
    rolls = np.random.default_rng(1)
    hum = (rolls.standard_normal(160 * 137) * 3000).astype(np.int16)
    pixels = rolls.integers(0, 256, (128, 128, 3), np.uint8)
    frames = rolls.integers(0, 256, (4, 96, 96, 3), np.uint8)
    asked = Question(
        "all",
        "all",
        "image",
        "Be brief.",
        (
            Turn((Sound(hum), Picture(pixels), "what is it"), "A circle."),
            Turn((Film(frames), Sound(hum[: 160 * 60]), "and now"), "?"),
        ),
    )
    told = reference.ReferenceInputs(nano).build(
        [
            reference.ReferenceMessage("system", ["Be brief."]),
            reference.ReferenceMessage(
                "user", [reference.Sound(hum / np.float32(32768)), reference.Picture(pixels), "what is it"]
            ),
            reference.ReferenceMessage("assistant", ["A circle."]),
            reference.ReferenceMessage(
                "user", [reference.Film(frames), reference.Sound(hum[: 160 * 60] / np.float32(32768)), "and now"]
            ),
        ]
    )
    inputs = TransformersInputs(nano).of(asked)
    assert inputs.keys() == told.keys()
    assert all(np.allclose(inputs[name], told[name], atol=1e-6) for name in told)
