"""What nano is taught is true, always the same, and keeps back what it is measured by."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest

from recipes.nano.domain.conversations import (
    CLASSES,
    Class,
    Conversation,
    Corpus,
    Film,
    Picture,
    Recording,
    Sound,
    Text,
    corpus,
)
from recipes.nano.domain.language import in_words, training_dice
from recipes.nano.domain.questions import Kind, arithmetic, comparison, counting
from recipes.nano.domain.sentences import answers_of_the_domain, lines_to_learn
from recipes.nano.domain.settings import CorpusSettings, Counts
from recipes.nano.domain.splits import Split, held_out_of_speech
from recipes.nano.domain.voices import VOICES_TO_LEARN_FROM

NUMBERS = {in_words(number): number for number in range(101)}
EACH = 60
COUNTS = Counts(**dict.fromkeys(CLASSES, EACH))
SETTINGS = CorpusSettings(training=COUNTS, held_out=COUNTS)
PRINT_DIGEST = f"""
from hashlib import sha256
from recipes.nano.domain.conversations import corpus
from recipes.nano.domain.settings import CorpusSettings
print(sha256(repr(corpus(CorpusSettings.model_validate_json('''{SETTINGS.model_dump_json()}'''))).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def drawn() -> Corpus:
    return corpus(SETTINGS)


def of_class(conversations: tuple[Conversation, ...], wanted: Class) -> Iterator[Conversation]:
    return (conversation for conversation in conversations if conversation.of_class == wanted)


def words(conversation: Conversation) -> str:
    """Of the last question, typed or spoken."""
    for part in conversation.turns[-1].parts:
        match part:
            case Text(text) | Recording(_, text, _):
                return text
    raise AssertionError(f"nothing is asked in {conversation}")


def test_sums_are_right() -> None:
    roll = training_dice("sums")
    for _ in range(500):
        left, right = arithmetic(roll).answer.lower().removesuffix(".").split(" is ")
        signed = left.replace("plus", "+").replace("minus", "-").replace("times", "*")
        a, operation, b = next(signed.partition(f" {sign} ") for sign in "+-*" if f" {sign} " in signed)
        result = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[operation.strip()](NUMBERS[a], NUMBERS[b])
        assert NUMBERS[right] == result


def test_what_is_thought_comes_to_the_answer() -> None:
    roll = training_dice("thoughts")
    for question in (arithmetic(roll) for _ in range(200)):
        result = question.answer.removesuffix(".").split(" is ")[1]
        assert question.thought is not None
        assert result in question.thought


def test_comparisons_are_right() -> None:
    roll = training_dice("comparisons")
    for _ in range(300):
        verdict, claim = comparison(roll).answer.removesuffix(".").split(", ")
        relation = "bigger" if "bigger" in claim else "smaller"
        a, b = claim.replace(" not", "").split(f" is {relation} than ")
        assert (verdict == "Yes") == ((NUMBERS[a] > NUMBERS[b]) == (relation == "bigger"))


def test_counting_leaves_no_number_out() -> None:
    roll = training_dice("counting")
    for _ in range(200):
        counted = [NUMBERS[word] for word in counting(roll).answer.lower().removesuffix(".").split(", ")]
        step = counted[1] - counted[0]
        assert counted == list(range(counted[0], counted[-1] + step, step))
        assert abs(step) == 1


def test_every_class_has_as_many_conversations_as_asked_for(drawn: Corpus) -> None:
    for conversations in (drawn.training, drawn.held_out):
        assert Counter(conversation.of_class for conversation in conversations) == dict.fromkeys(CLASSES, EACH)


def test_a_corpus_is_the_same_in_every_process() -> None:
    commands = [[sys.executable, "-c", PRINT_DIGEST]] * 2
    digests = {
        subprocess.run(command, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True).stdout
        for command, seed in zip(commands, "12", strict=True)
    }
    assert len(digests) == 1


def test_recordings_are_numbered_without_gaps(drawn: Corpus) -> None:
    assert [recording.number for recording in drawn.recordings] == list(range(len(drawn.recordings)))


def test_a_transcription_is_of_a_spoken_question(drawn: Corpus) -> None:
    asked = {part for one in of_class(drawn.training, "spoken") for part in one.turns[0].parts}
    for conversation in of_class(drawn.training, "transcription"):
        recording = conversation.turns[0].parts[0]
        assert recording in asked
        assert isinstance(recording, Recording)
        assert conversation.turns[0].answer.lower() == recording.words.replace(":", "").lower() + "."


def test_what_was_told_is_remembered(drawn: Corpus) -> None:
    for conversation in of_class(drawn.training, "spoken_memory"):
        told, asked = conversation.turns
        remembered = asked.answer.removesuffix(".").split(" is ")[1]
        assert remembered in told.answer
        assert any(isinstance(part, Recording) and remembered in part.words for part in told.parts)


def test_pictures_and_films_are_described_by_what_is_on_them(drawn: Corpus) -> None:
    for conversation in drawn.training:
        answer = conversation.turns[-1].answer
        match conversation.turns[-1].parts[0]:
            case Picture(scene, _) if answer.startswith("I see"):
                assert [answer.index(str(shape)) for shape in scene.shapes] == sorted(
                    map(answer.index, map(str, scene.shapes))
                )
                assert answer.count(" a ") + answer.count(" an ") == len(scene.shapes)
            case Film(motion, _) if "moves" in answer:
                assert answer.endswith(f"{motion.shape.form} moves {motion.direction}.")


def test_no_held_out_phrase_is_in_training(drawn: Corpus) -> None:
    kept_back = {words(conversation) for conversation in drawn.held_out if conversation.kind == "phrase"}
    split = Split("training", frozenset({"phrase"}))
    roll = training_dice("any questions")
    assert kept_back
    assert not [question for question in (split.question(roll) for _ in range(5000)) if question.asked in kept_back]


@pytest.mark.parametrize("kind", ["arithmetic", "comparison", "counting"])
def test_kinds_that_are_kept_back_share_no_question_with_training(kind: Kind) -> None:
    roll = training_dice("two splits")
    keys = {
        name: {
            question.key
            for question in (Split(name, frozenset({kind})).question(roll) for _ in range(4000))
            if question.kind == kind
        }
        for name in ("training", "held out")
    }
    assert keys["training"]
    assert keys["held out"]
    assert not keys["training"] & keys["held out"]


def test_no_picture_film_or_sound_is_in_both_splits(drawn: Corpus) -> None:
    seeds = [
        {
            part.seed
            for one in conversations
            for turn in one.turns
            for part in turn.parts
            if isinstance(part, Picture | Film | Sound)
        }
        for conversations in (drawn.training, drawn.held_out)
    ]
    assert not seeds[0] & seeds[1]


def test_the_beginning_of_the_lines_is_a_sample_of_all() -> None:
    lines = list(islice(lines_to_learn(domain_share=0.5, longest_phrase=8), 2000))
    assert lines[:500] == list(islice(lines_to_learn(domain_share=0.5, longest_phrase=8), 500))
    answers = set(answers_of_the_domain())
    assert 0.45 < sum(text in answers for text, _ in lines) / len(lines) < 0.55
    assert {voice for _, voice in lines} == set(VOICES_TO_LEARN_FROM)
    assert len(set(lines)) == len(lines)


def test_one_sentence_in_a_hundred_is_kept_from_the_voice() -> None:
    answers = answers_of_the_domain()
    assert 0.007 < sum(map(held_out_of_speech, answers)) / len(answers) < 0.014


def test_more_transcriptions_than_spoken_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="as many spoken questions"):
        Counts(**dict.fromkeys(CLASSES, 2) | {"transcription": 3})
