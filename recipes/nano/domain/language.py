"""How nano's world writes: numbers in words, articles, capitals, and the ways in which people type a question."""

from random import Random

from .vocabulary import SMALL_NUMBERS, TENS

QUESTION_WORDS = {"what", "what's", "how", "who", "which", "is", "can", "are", "where", "when", "do", "why"}


def dice(purpose: str) -> Random:
    """The same numbers on every machine, and different ones for every purpose."""
    return Random(f"antiphon held-out: {purpose}")  # noqa: S311 - nothing here is secret


def training_dice(purpose: str) -> Random:
    """As `dice`, and never the numbers that held-out items are drawn with."""
    return Random(f"antiphon training: {purpose}")  # noqa: S311 - nothing here is secret


def in_words(number: int) -> str:
    if number < 20:
        return SMALL_NUMBERS[number]
    if number == 100:
        return "one hundred"
    tens, ones = divmod(number, 10)
    return f"{TENS[tens - 2]} {SMALL_NUMBERS[ones]}" if ones else TENS[tens - 2]


def with_article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def sentence_case(text: str) -> str:
    return text[0].upper() + text[1:]


def typed(roll: Random, question: str) -> str:
    """Four in nine with a capital, seven in ten with a mark at the end."""
    care = roll.random()
    if care < 0.45:
        question = sentence_case(question)
    if care >= 0.7 or question.endswith("."):
        return question
    return question + ("?" if question.lower().split()[0] in QUESTION_WORDS else ".")
