"""What is measured of a checkpoint: the right sentences, counted rightly, and written down whole."""

import math
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from recipes.nano.domain.language import training_dice
from recipes.nano.domain.sentences import answers_of_the_domain, fresh_phrases, lines_to_learn
from recipes.nano.domain.splits import held_out_of_speech
from recipes.nano.evaluation.answers import ClassFigures, class_figures
from recipes.nano.evaluation.language_model import any_order_model, sentences_of_the_domain
from recipes.nano.evaluation.questions import Question, Turn
from recipes.nano.evaluation.report import Report
from recipes.nano.evaluation.sentences import held_out_sums, lines_to_speak, questions_to_answer_aloud
from recipes.nano.evaluation.speech import VOICES
from recipes.nano.evaluation.voice_figures import Soundness, Understood, VoiceFigures
from recipes.nano.evaluation.word_errors import Heard, edit_distance, word_error_rate, words_of


def test_no_voice_was_taught_the_sentences_that_are_held_out() -> None:
    of_domain = {line.text for line in lines_to_speak(120) if line.kind == "domain"}
    assert all(map(held_out_of_speech, of_domain))
    assert of_domain <= set(answers_of_the_domain())
    phrases = {line.text for line in lines_to_speak(120) if line.kind == "phrase"}
    taught = {text for text, _ in islice(lines_to_learn(0.1, 6), 20_000)}
    assert not phrases & (taught | set(islice(fresh_phrases(training_dice("any"), 6), 20_000)))


def test_everyday_sentences_are_those_that_every_voice_was_taught() -> None:
    everyday = {line.text for line in lines_to_speak(120) if line.kind == "everyday"}
    assert everyday <= set(answers_of_the_domain())
    assert not any(map(held_out_of_speech, everyday))


def test_every_held_out_answer_is_spoken_in_every_voice_and_phrases_in_turn() -> None:
    lines = lines_to_speak(120)
    spoken = Counter(line.text for line in lines if line.kind == "domain")
    assert set(spoken.values()) == {len(VOICES)}
    phrases = Counter(line.voice for line in lines if line.kind == "phrase")
    assert max(phrases.values()) - min(phrases.values()) <= 1
    assert len({line.text for line in lines if line.kind != "everyday"}) == 120


def test_lines_repeat_and_differ_in_their_seeds() -> None:
    assert lines_to_speak(30) == lines_to_speak(30)
    seeds = [line.seed for seed in (0, 1) for line in lines_to_speak(30, seed)]
    assert len(seeds) == len(set(seeds))


def test_questions_to_answer_aloud_are_of_every_kind_and_voice() -> None:
    asked = questions_to_answer_aloud(60)
    assert Counter(one.kind for one in asked) == {"domain": 20, "everyday": 20, "phrase": 20}
    assert {one.voice for one in asked} == set(VOICES)
    assert len({one.question.name for one in asked}) == 60


def test_sums_are_held_out_and_differ() -> None:
    asked = [one.turns[0].parts[0] for one in held_out_sums(60)]
    assert len(set(asked)) == 60
    assert all(" is " in one.expected for one in held_out_sums(60))


def test_phrases_to_speak_are_unknown_to_the_recogniser() -> None:
    known = set(sentences_of_the_domain())
    phrases = [words_of(line.text) for line in lines_to_speak(120) if line.kind == "phrase"]
    assert not [phrase for phrase in phrases if phrase in known and len(phrase) > 1]


def test_any_order_gives_every_word_a_chance_and_all_of_them_one() -> None:
    words = {word for sentence in sentences_of_the_domain() for word in sentence}
    lines = any_order_model(words).partition("\\1-grams:\n")[2].partition("\n\n")[0].splitlines()
    chances = {word: 10 ** float(log) for log, word in (line.split() for line in lines) if word != "<s>"}
    assert chances.keys() == words | {"</s>"}
    assert math.isclose(sum(chances.values()), 1.0, abs_tol=1e-3)
    assert min(chances.values()) >= 0.49 / len(chances)
    assert chances["is"] > chances["violin"]


@pytest.mark.parametrize(
    ("expected", "got", "distance"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a c", "a b c", 1),
        ("a b", "", 2),
        ("", "a", 1),
    ],
)
def test_word_errors_are_replaced_missing_and_added_words(expected: str, got: str, distance: int) -> None:
    assert edit_distance(expected.split(), got.split()) == distance


def test_the_word_error_rate_counts_words_not_sentences() -> None:
    heard = [Heard(words_of("Yes."), ("no",)), Heard(words_of("One, two, three."), ("one", "two", "three"))]
    assert word_error_rate(heard) == 0.25


def question(name: str, of_class: str, kind: str, answer: str) -> Question:
    return Question(name, of_class, kind, None, (Turn(("?",), answer),))


def test_answers_are_counted_by_class() -> None:
    asked = [
        question("a", "typed", "fact", "Blue."),
        question("b", "typed", "arithmetic", "Two."),
        question("c", "spoken", "arithmetic", "Three."),
    ]
    figures = class_figures(
        asked, {"a": "Blue.", "b": "Two.", "c": "Four."}, {"a": " Blue.", "b": "Six.", "c": "Four."}
    )
    assert figures == [
        ClassFigures("typed", 2, 2, 1, 0),
        ClassFigures("spoken", 1, 0, 0, 1),
    ]


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    understood = [
        Understood("domain", "all", 2, 30, {"nano's sentences": 0.1, "any order": 0.3}, 1),
        Understood("domain", "ethan", 1, 15, {"nano's sentences": 0.0, "any order": 0.0}, 1),
        Understood("phrase", "all", 1, 10, {"nano's sentences": 0.5, "any order": 0.7}, 0),
    ]
    speech = VoiceFigures("voice alone", understood, Soundness(1.0, 0.0, 0.9, 0.07, None))
    report = Report([ClassFigures("typed", 60, 59, 59, 60)], [speech])
    report.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == report
    assert report.of_class("typed").right_share == 59 / 60
    assert math.isclose(report.of_speech("voice alone").word_error_rate("any order"), 0.4)
