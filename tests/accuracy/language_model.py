"""What the recogniser knows of nano's answers: a bigram model by absolute discounting, and how each word sounds."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from recipes.nano.domain import pictures
from recipes.nano.domain.language import dice, in_words
from recipes.nano.domain.questions import MAKERS, phrase
from recipes.nano.domain.vocabulary import NAMES, WORDS

SENTENCES, PHRASES = 20_000, 20_000
LONGEST_PHRASE = 8
DISCOUNT = 0.6
RAREST_COUNT = 3
START, END = "<s>", "</s>"

# Words that the dictionary of pocketsphinx lacks, in its phones.
OWN_PHONES = {
    "antiphon": "AE N T AH F AA N",
    "oink": "OY NG K",
    "baa": "B AA",
    "woof": "W UH F",
    "moo": "M UW",
}

Sentence = tuple[str, ...]


def words_of(text: str) -> Sentence:
    """Lower case, without punctuation."""
    return tuple(re.sub(r"[^a-z' ]", " ", text.lower()).split())


def sentences_of_the_domain() -> list[Sentence]:
    """Every different answer that many draws give, and random phrases; what the speech test holds out is left out."""
    roll = dice("language model")
    drawn = [*_drawn(roll), *_remembered(roll)]
    return sorted({words_of(sentence) for sentence in drawn})


def _drawn(roll: Random) -> Iterator[str]:
    makers, weights = [maker for maker, _ in MAKERS], [weight for _, weight in MAKERS]
    for maker in roll.choices(makers, weights, k=SENTENCES):
        question = maker(roll)
        if question.kind != "phrase":
            yield from (answer for answer in (question.answer, question.short) if answer)
    phrases = (phrase(roll, LONGEST_PHRASE) for _ in range(PHRASES))
    yield from (question.answer for question in phrases if not question.held_out)
    yield from WORDS


def _remembered(roll: Random) -> Iterator[str]:
    for name in NAMES:
        yield from (f"Nice to meet you {name}", f"Your name is {name}", f"My name is {name}")
    for colour in pictures.COLOURS:
        yield from (f"I like {colour} too", f"Your favorite color is {colour}")
    for number in range(41):
        yield from (f"I will remember {in_words(number)}", f"Your number is {in_words(number)}")


def bigram_model(sentences: Sequence[Sentence]) -> str:
    """ARPA text; probabilities of unseen pairs are backed off to the words' own."""
    follows: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        for word, after in zip((START, *sentence), (*sentence, END), strict=True):
            follows[word][after] += 1
    words = _word_probabilities(follows)
    singles = [f"{_log(p)} {word} {_log(_back_off(follows.get(word), words))}" for word, p in sorted(words.items())]
    singles.append(f"-99 {START} {_log(_back_off(follows[START], words))}")
    pairs = [
        f"{_log((n - DISCOUNT) / after.total())} {word} {next_word}"
        for word, after in sorted(follows.items())
        for next_word, n in sorted(after.items())
    ]
    counts = f"\\data\\\nngram 1={len(singles)}\nngram 2={len(pairs)}\n"
    return "\n".join([counts, "\\1-grams:", *singles, "", "\\2-grams:", *pairs, "", "\\end\\", ""])


def _word_probabilities(follows: dict[str, Counter[str]]) -> dict[str, float]:
    counts = Counter[str]()
    for after in follows.values():
        counts.update(after)
    floored = {word: max(n, RAREST_COUNT) for word, n in counts.items()}
    total = sum(floored.values())
    return {word: n / total for word, n in floored.items()}


def _back_off(after: Counter[str] | None, words: dict[str, float]) -> float:
    """The discounted mass, over what the words not seen after this one have of their own."""
    if not after:
        return 1.0
    freed = DISCOUNT * len(after) / after.total()
    return freed / max(1e-3, 1 - sum(words[word] for word in after))


def _log(probability: float) -> str:
    return f"{math.log10(max(probability, 1e-6)):.4f}"


def phones_of(words: set[str], dictionary: Path) -> Iterator[tuple[str, str]]:
    """(word, phones) for pocketsphinx; other ways to say a word are written as `word(2)`."""
    missing = words - set(OWN_PHONES)
    for line in dictionary.read_text().splitlines():
        entry, _, spelling = line.partition(" ")
        word = entry.partition("(")[0]
        if word in words:
            missing.discard(word)
            yield entry, spelling
    yield from sorted(OWN_PHONES.items())
    if missing:
        raise LookupError(f"No pronunciation for {sorted(missing)}: add them to OWN_PHONES.")
