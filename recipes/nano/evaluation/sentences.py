"""What a checkpoint is to say aloud: answers and phrases that no voice was taught, and everyday answers that all were.

The answers that are held out are mostly sums and comparisons, because most different answers are. Greetings and facts
cannot be held out, there being so few; users hear them most, so they are measured beside, as what they are.
"""

from collections.abc import Iterable
from itertools import cycle
from random import Random

from recipes.nano.domain.language import dice, typed
from recipes.nano.domain.questions import MAKERS, Question, arithmetic, held_out_phrase
from recipes.nano.domain.sentences import QUESTIONS_TO_DRAW, answers_of_the_domain
from recipes.nano.domain.splits import held_out_of_speech
from recipes.nano.evaluation import questions
from recipes.nano.evaluation.questions import Turn
from recipes.nano.evaluation.speech import VOICES, Kind, Line, SpokenQuestion

EVERYDAY = ("fact", "chat", "unknown")

Exchange = tuple[str, str]  # what is asked, and the answer


def lines_to_speak(sentences: int, seed: int = 0) -> list[Line]:
    """`sentences` different ones that no voice was taught: answers, at most a third, each in every voice; then phrases,
    the voices in turn. Behind them a quarter as many everyday answers."""
    answers = domain_answers()[: sentences // 3]
    spoken: list[tuple[Kind, str, str]] = [("domain", text, voice) for text in answers for voice in VOICES]
    spoken += _in_turn("phrase", fresh_phrases(sentences - len(answers)))
    spoken += _in_turn("everyday", everyday_answers(sentences // 4))
    return [Line(*each, len(spoken) * seed + number) for number, each in enumerate(spoken)]


def questions_to_answer_aloud(count: int, seed: int = 0) -> list[SpokenQuestion]:
    """Typed: a third of them ask for answers that are held out, a third for everyday ones, a third to repeat."""
    domain, everyday = questions_of_the_domain()[: count // 3], everyday_answers(count // 3)
    asked: list[tuple[Kind, Exchange]] = [("domain", exchange) for exchange in domain]
    asked += [("everyday", exchange) for exchange in everyday]
    asked += [("phrase", exchange) for exchange in fresh_phrases(count - len(asked))]
    return [
        SpokenQuestion(kind, _question(f"aloud-{number:03}", "aloud", kind, exchange), voice, count * seed + number)
        for number, ((kind, exchange), voice) in enumerate(zip(asked, cycle(VOICES), strict=False))
    ]


def held_out_sums(size: int) -> list[questions.Question]:
    """Typed in words. Training sees them, too, unless its `kept_back` names arithmetic."""
    roll, asked = dice("held-out sums"), dict[str, str]()
    while len(asked) < size:
        question = arithmetic(roll)
        if question.held_out:
            asked.setdefault(question.asked, question.answer)
    each = enumerate(asked.items())
    return [_question(f"sums-{number:04}", "sums", "arithmetic", exchange) for number, exchange in each]


def domain_answers() -> list[str]:
    """Every one that is held out, always in the same order, which mixes the kinds."""
    answers = [text for text in answers_of_the_domain() if held_out_of_speech(text)]
    dice("answers to speak").shuffle(answers)
    return answers


def questions_of_the_domain() -> list[Exchange]:
    """One for each of those answers that some typed question has, mixed."""
    roll, asked = dice("questions to answer aloud"), dict[str, str]()
    for question in _drawn(roll, QUESTIONS_TO_DRAW):
        if question.kind != "phrase" and held_out_of_speech(question.answer):
            asked.setdefault(question.answer, typed(roll, question.asked))
    exchanges = [(asked[answer], answer) for answer in sorted(asked)]
    roll.shuffle(exchanges)
    return exchanges


def everyday_answers(size: int) -> list[Exchange]:
    """Greetings, facts and what nano does not know, each once; every voice was taught them."""
    roll, asked = dice("everyday answers to speak"), dict[str, str]()
    while len(asked) < size:
        (question,) = _drawn(roll, 1)
        if question.kind in EVERYDAY and not held_out_of_speech(question.answer):
            asked.setdefault(question.answer, typed(roll, question.asked))
    return [(question, answer) for answer, question in asked.items()]


def fresh_phrases(size: int) -> list[Exchange]:
    """Random words, one to six, that no training hears or says; each once."""
    roll, hand, phrases = dice("phrases to speak"), dice("phrases as they are typed"), dict[str, str]()
    while len(phrases) < size:
        question = held_out_phrase(roll)
        phrases.setdefault(question.answer, typed(hand, question.asked))
    return [(asked, answer) for answer, asked in phrases.items()]


def _drawn(roll: Random, size: int) -> Iterable[Question]:
    """In the proportions of the domain."""
    makers, weights = [maker for maker, _ in MAKERS], [weight for _, weight in MAKERS]
    return (maker(roll) for maker in roll.choices(makers, weights, k=size))


def _in_turn(kind: Kind, exchanges: Iterable[Exchange]) -> list[tuple[Kind, str, str]]:
    return [(kind, answer, voice) for (_, answer), voice in zip(exchanges, cycle(VOICES), strict=False)]


def _question(name: str, of_class: str, kind: str, exchange: Exchange) -> questions.Question:
    asked, answer = exchange
    return questions.Question(name, of_class, kind, None, (Turn((asked,), answer),))
