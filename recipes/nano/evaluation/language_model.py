"""What a listener may expect of nano: its sentences, by a bigram model, or its words in any order."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path

from recipes.nano.domain.language import dice
from recipes.nano.domain.sentences import answers_of_the_domain, fresh_phrases
from recipes.nano.domain.vocabulary import WORDS
from recipes.nano.evaluation.word_errors import Sentence, words_of

PHRASES = 20_000
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


def sentences_of_the_domain() -> list[Sentence]:
    """Every different answer, and random phrases; phrases that are held out are left out."""
    phrases = islice(fresh_phrases(dice("language model"), LONGEST_PHRASE), PHRASES)
    return sorted({words_of(sentence) for sentence in (*answers_of_the_domain(), *phrases, *WORDS)})


def bigram_model(sentences: Sequence[Sentence]) -> str:
    """ARPA text, by absolute discounting; probabilities of unseen pairs are backed off to the words' own."""
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


def any_order_model(words: Collection[str]) -> str:
    """ARPA text: each word is as likely whatever came before: half of it as often as nano's answers have it, half of
    it as any other word, so that none is out of reach."""
    counts = Counter(word for answer in answers_of_the_domain() for word in (*words_of(answer), END))
    total, different = counts.total(), len(words) + 1
    singles = [f"{_log((counts[word] / total + 1 / different) / 2)} {word}" for word in (END, *sorted(words))]
    singles.append(f"-99 {START}")
    return "\n".join([f"\\data\\\nngram 1={len(singles)}\n", "\\1-grams:", *singles, "", "\\end\\", ""])


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
