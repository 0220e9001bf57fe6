"""What nano says: every answer of its world, and fresh phrases of its words."""

from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Literal

from . import films, pictures, sounds
from .language import dice, in_words, training_dice
from .questions import MAKERS, phrase
from .vocabulary import NAMES
from .voices import VOICES_TO_LEARN_FROM

# So many draws find every answer, but for some pictures of three shapes.
QUESTIONS_TO_DRAW, PICTURES_TO_DRAW, FILMS_TO_DRAW = 60_000, 20_000, 10_000

# Facts, small talk and what was told before: some five hundred. Sums, counts and what is seen: many, all alike.
AnswerKind = Literal["everyday", "composed", "phrase"]

Line = tuple[str, str]  # a text and the voice that says it


def answers_of_the_domain() -> tuple[str, ...]:
    """Each once, in order of the alphabet; phrases to repeat have no end and are not among them."""
    return _all_answers()


@cache
def _all_answers() -> tuple[str, ...]:
    roll = dice("every answer")
    answers = {*drawn_answers(roll, QUESTIONS_TO_DRAW), *remembered_answers(), *sounds.CAPTIONS.values()}
    answers |= {pictures.ask_about(roll, pictures.scene(roll))[1] for _ in range(PICTURES_TO_DRAW)}
    answers |= {films.ask_about(roll, films.motion(roll))[1] for _ in range(FILMS_TO_DRAW)}
    return tuple(sorted(answers))


def kind_of_answer(text: str) -> AnswerKind:
    if text in _everyday_answers():
        return "everyday"
    return "composed" if text in _answers() else "phrase"


@cache
def _answers() -> frozenset[str]:
    return frozenset(_all_answers())


@cache
def _everyday_answers() -> frozenset[str]:
    """Of all questions without a key."""
    roll = dice("everyday answers")
    makers, weights = [maker for maker, _ in MAKERS], [weight for _, weight in MAKERS]
    questions = [maker(roll) for maker in roll.choices(makers, weights, k=QUESTIONS_TO_DRAW)]
    answers = {text for one in questions if one.key is None for text in (one.answer, one.short) if text}
    return frozenset(answers.union(remembered_answers(), sounds.CAPTIONS.values()))


def drawn_answers(roll: Random, questions: int) -> Iterator[str]:
    """Whole and in one word, of so many questions that are no phrases to repeat."""
    makers, weights = [maker for maker, _ in MAKERS], [weight for _, weight in MAKERS]
    for maker in roll.choices(makers, weights, k=questions):
        question = maker(roll)
        if question.kind != "phrase":
            yield from (answer for answer in (question.answer, question.short) if answer)


def remembered_answers() -> Iterator[str]:
    for name in NAMES:
        yield from (f"Nice to meet you, {name}.", f"Your name is {name}.", f"My name is {name}.")
    for colour in pictures.COLOURS:
        yield from (f"I like {colour} too.", f"Your favorite color is {colour}.")
    for number in range(41):
        yield from (f"I will remember {in_words(number)}.", f"Your number is {in_words(number)}.")


def fresh_phrases(roll: Random, longest: int) -> Iterator[str]:
    """Without end and without repetition; what is held out is left out."""
    said = set[str]()
    while True:
        question = phrase(roll, longest)
        if not question.held_out and question.answer not in said:
            said.add(question.answer)
            yield question.answer


def lines_to_learn(domain_share: float, longest_phrase: int) -> Iterator[Line]:
    """What a voice learns from, without end: the domain's answers in every voice, each once, among fresh phrases.

    Mixed, so that a beginning of it is a fair sample. Sentences that are `splits.held_out_of_speech` are among them:
    who learns leaves them out, who measures takes them.
    """
    roll = training_dice("lines to learn")
    answers = [(text, voice) for text in answers_of_the_domain() for voice in VOICES_TO_LEARN_FROM]
    roll.shuffle(answers)
    phrases = fresh_phrases(roll, longest_phrase)
    while True:
        if answers and roll.random() < domain_share:
            yield answers.pop()
        else:
            yield next(phrases), roll.choice(VOICES_TO_LEARN_FROM)
