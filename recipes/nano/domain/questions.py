"""Questions of nano's world that need no media, and their answers."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal
from zlib import crc32

from .language import in_words, sentence_case, with_article
from .vocabulary import (
    CAPITALS,
    CHAT,
    COLOUR_OF_THING,
    DAYS,
    HOW_MANY,
    LEGS,
    MONTHS,
    OPPOSITES,
    SOUND_OF_ANIMAL,
    UNKNOWN,
    UNKNOWN_ANSWER,
    WORDS,
)

Kind = Literal["arithmetic", "comparison", "counting", "fact", "chat", "unknown", "phrase"]
HELD_OUT_PERCENT = 6


@dataclass(frozen=True)
class Question:
    """`short` is the answer in one word, where there is one; `key` names what training may have held back.

    `thought` is what nano thinks before it answers, where it may think aloud.
    """

    kind: Kind
    asked: str
    answer: str
    short: str | None = None
    key: str | None = None
    thought: str | None = None

    @property
    def held_out(self) -> bool:
        """Facts and small talk cannot be held out: only their wording, voice and drawing are new."""
        return self.key is None or crc32(f"ho:{self.key}".encode()) % 100 < HELD_OUT_PERCENT


def held_out_question(roll: Random) -> Question:
    """One question in the proportions of the held-out set that nano was measured with."""
    while True:
        ask = roll.choices([maker for maker, _ in MAKERS], [weight for _, weight in MAKERS])[0]
        question = ask(roll)
        if question.held_out:
            return question


def held_out_phrase(roll: Random, longest: int = 6) -> Question:
    while True:
        question = phrase(roll, longest)
        if question.held_out:
            return question


def arithmetic(roll: Random, *, digits: bool = False) -> Question:
    a, operation, b, result = _sum(roll)
    spoken = operation
    if digits and roll.random() < 0.5:
        spoken = {"plus": "+", "minus": "-", "times": "*"}[operation]
    left, right = (str(a), str(b)) if digits else (in_words(a), in_words(b))
    asked = roll.choice(
        [
            "what is {}",
            "what's {}",
            "how much is {}",
            "{}",
            "calculate {}",
            "can you tell me what {} is",
            "please compute {}",
        ]
    ).format(f"{left} {spoken} {right}")
    answer = sentence_case(f"{in_words(a)} {operation} {in_words(b)} is {in_words(result)}.")
    key, thought = f"arith{a}{operation}{b}", _thought(a, operation, b, result)
    return Question("arithmetic", asked, answer, _short(in_words(result)), key, thought)


def _sum(roll: Random) -> tuple[int, str, int, int]:
    operation = roll.choice(["plus", "plus", "minus", "times"])
    if operation == "plus":
        a, b = roll.randint(0, 12), roll.randint(0, 12)
        return a, operation, b, a + b
    if operation == "minus":
        a = roll.randint(0, 20)
        b = roll.randint(0, min(a, 12))
        return a, operation, b, a - b
    a, b = roll.randint(0, 10), roll.randint(0, 10)
    return a, operation, b, a * b


def _thought(a: int, operation: str, b: int, result: int) -> str:
    left, right, found = in_words(a), in_words(b), in_words(result)
    if operation == "plus":
        return f"{left} plus {right} makes {found}"
    if operation == "minus":
        return f"take {right} from {left} and {found} is left"
    return f"{left} groups of {right} make {found}"


def comparison(roll: Random) -> Question:
    a, b = roll.sample(range(21), 2)
    relation = roll.choice(["bigger", "smaller"])
    true = a > b if relation == "bigger" else a < b
    asked = roll.choice(["is {} {} than {}", "tell me if {} is {} than {}"])
    asked = asked.format(in_words(a), relation, in_words(b))
    verdict = f"Yes, {in_words(a)} is" if true else f"No, {in_words(a)} is not"
    answer = f"{verdict} {relation} than {in_words(b)}."
    return Question("comparison", asked, answer, "Yes." if true else "No.", f"compare{a}{relation}{b}")


def counting(roll: Random) -> Question:
    manner = roll.random()
    if manner < 0.5:
        last = roll.randint(2, 12)
        asked = roll.choice(["count to {}", "please count to {}", "can you count to {}"]).format(in_words(last))
        numbers, key = range(1, last + 1), f"to{last}"
    elif manner < 0.75:
        first = roll.randint(3, 10)
        asked, numbers, key = f"count down from {in_words(first)}", range(first, 0, -1), f"down{first}"
    else:
        first = roll.randint(1, 12)
        last = first + roll.randint(2, 7)
        asked = f"count from {in_words(first)} to {in_words(last)}"
        numbers, key = range(first, last + 1), f"{first}to{last}"
    answer = sentence_case(", ".join(map(in_words, numbers))) + "."
    return Question("counting", asked, answer, key=f"count{key}")


def neighbour(roll: Random) -> Question:
    manner, relation = roll.random(), roll.choice(["after", "before"])
    step = 1 if relation == "after" else -1
    if manner < 0.35:
        number = roll.randint(1, 49)
        asked, comes = f"what number comes {relation} {in_words(number)}", sentence_case(in_words(number + step))
        return Question("fact", asked, f"{comes} comes {relation} {in_words(number)}.", f"{comes}.")
    names, unit = (DAYS, "day") if manner < 0.65 else (MONTHS, "month")
    index = roll.randrange(len(names))
    name, comes = names[index], names[(index + step) % len(names)]
    asked = roll.choice(["what {u} comes {r} {n}", "which {u} is {r} {n}", "what comes {r} {n}"])
    asked = asked.format(u=unit, r=relation, n=name)
    return Question("fact", asked, f"{comes} comes {relation} {name}.", f"{comes}.")


def fact(roll: Random) -> Question:
    return roll.choice([_colour, _sound, _opposite, _capital, _legs, _how_many])(roll)


def _colour(roll: Random) -> Question:
    thing, colour = roll.choice(list(COLOUR_OF_THING.items()))
    asked = roll.choice(["what color is {}", "tell me the color of {}", "which color does {} have"]).format(thing)
    return Question("fact", asked, f"{sentence_case(thing)} is {colour}.", _short(colour))


def _sound(roll: Random) -> Question:
    animal, sound = roll.choice(list(SOUND_OF_ANIMAL.items()))
    one = with_article(animal)
    asked = roll.choice(["what does {} say", "what sound does {} make", "how does {} sound"]).format(one)
    return Question("fact", asked, f"{sentence_case(one)} says {sound}.", _short(sound))


def _opposite(roll: Random) -> Question:
    word, opposite = roll.choice(list(OPPOSITES.items()))
    asked = roll.choice(["what is the opposite of {}", "tell me the opposite of {}", "the opposite of {}"]).format(word)
    return Question("fact", asked, f"The opposite of {word} is {opposite}.", _short(opposite))


def _capital(roll: Random) -> Question:
    country, city = roll.choice(list(CAPITALS.items()))
    asked = roll.choice(["what is the capital of {}", "tell me the capital of {}", "which city is the capital of {}"])
    return Question("fact", asked.format(country), f"The capital of {country} is {city}.", f"{city}.")


def _legs(roll: Random) -> Question:
    animal, legs = roll.choice(list(LEGS.items()))
    one = with_article(animal)
    answer = f"{sentence_case(one)} has {in_words(legs) if legs else 'no'} legs."
    return Question("fact", f"how many legs does {one} have", answer, _short(in_words(legs)))


def _how_many(roll: Random) -> Question:
    what, answer = roll.choice(list(HOW_MANY.items()))
    return Question("fact", roll.choice(["how many {}", "tell me how many {}"]).format(what), answer)


def chat(roll: Random) -> Question:
    answer, ways = roll.choice(list(CHAT.items()))
    return Question("chat", roll.choice(ways), answer)


def unknown(roll: Random) -> Question:
    return Question("unknown", roll.choice(UNKNOWN), UNKNOWN_ANSWER)


def phrase(roll: Random, longest: int = 6) -> Question:
    words = [
        roll.choice(WORDS) if roll.random() < 0.93 else in_words(roll.randint(0, 30))
        for _ in range(roll.randint(1, longest))
    ]
    said = " ".join(words)
    asked = roll.choice(["repeat after me: {}", "say {}", "please say: {}", "repeat: {}"]).format(said)
    return Question("phrase", asked, sentence_case(said) + ".", key=f"repeat{said}")


def _short(word: str) -> str:
    return sentence_case(word) + "."


# How often training drew each maker.
MAKERS: tuple[tuple[Callable[[Random], Question], int], ...] = (
    (arithmetic, 30),
    (comparison, 6),
    (counting, 6),
    (neighbour, 8),
    (fact, 16),
    (chat, 8),
    (unknown, 3),
    (phrase, 23),
)
