"""Sentences that no voice was taught to speak: answers of the domain in every voice, and phrases to repeat."""

from itertools import cycle

from recipes.nano.domain.language import dice, typed
from recipes.nano.domain.questions import MAKERS, held_out_phrase
from recipes.nano.domain.sentences import QUESTIONS_TO_DRAW, answers_of_the_domain
from recipes.nano.domain.splits import held_out_of_speech
from recipes.nano.evaluation.questions import Question, Turn
from recipes.nano.evaluation.speech import VOICES, Kind, Line, SpokenQuestion

Exchange = tuple[str, str]  # what is asked, and the answer


def lines_to_speak(sentences: int, seed: int = 0) -> list[Line]:
    """`sentences` different ones: answers of the domain, at most a third, each in every voice; then phrases in turn."""
    answers = domain_answers()[: sentences // 3]
    phrases = [answer for _, answer in fresh_phrases(sentences - len(answers))]
    spoken: list[tuple[Kind, str, str]] = [("domain", text, voice) for text in answers for voice in VOICES]
    spoken += [("phrase", text, voice) for text, voice in zip(phrases, cycle(VOICES), strict=False)]
    return [Line(*each, len(spoken) * seed + number) for number, each in enumerate(spoken)]


def questions_to_answer_aloud(count: int, seed: int = 0) -> list[SpokenQuestion]:
    """Typed: half of them phrases to repeat, the others asking for answers of the domain, again in the next voice."""
    domain = questions_of_the_domain()
    asked: list[tuple[Kind, Exchange]] = [("domain", exchange) for exchange in domain for _ in VOICES][: count // 2]
    asked += [("phrase", exchange) for exchange in fresh_phrases(count - len(asked))]
    return [
        SpokenQuestion(kind, _question(f"aloud-{number:03}", kind, exchange), voice, count * seed + number)
        for number, ((kind, exchange), voice) in enumerate(zip(asked, cycle(VOICES), strict=False))
    ]


def domain_answers() -> list[str]:
    """Every one that is held out, always in the same order, which mixes the kinds."""
    answers = [text for text in answers_of_the_domain() if held_out_of_speech(text)]
    dice("answers to speak").shuffle(answers)
    return answers


def questions_of_the_domain() -> list[Exchange]:
    """One for each of those answers that some typed question has, mixed."""
    roll, asked = dice("questions to answer aloud"), dict[str, str]()
    makers, weights = [maker for maker, _ in MAKERS], [weight for _, weight in MAKERS]
    for maker in roll.choices(makers, weights, k=QUESTIONS_TO_DRAW):
        question = maker(roll)
        if question.kind != "phrase" and held_out_of_speech(question.answer):
            asked.setdefault(question.answer, typed(roll, question.asked))
    exchanges = [(asked[answer], answer) for answer in sorted(asked)]
    roll.shuffle(exchanges)
    return exchanges


def fresh_phrases(size: int) -> list[Exchange]:
    """Random words, one to six, that no training hears or says; each once."""
    roll, hand, phrases = dice("phrases to speak"), dice("phrases as they are typed"), dict[str, str]()
    while len(phrases) < size:
        question = held_out_phrase(roll)
        phrases.setdefault(question.answer, typed(hand, question.asked))
    return [(asked, answer) for answer, asked in phrases.items()]


def _question(name: str, kind: Kind, exchange: Exchange) -> Question:
    asked, answer = exchange
    return Question(name, "aloud", kind, None, (Turn((asked,), answer),))
