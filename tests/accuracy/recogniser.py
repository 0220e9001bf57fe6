"""An independent listener: pocketsphinx with a bigram language model of nano's answers, and the word error rate."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pocketsphinx
import soxr

from .language_model import bigram_model, phones_of, sentences_of_the_domain, words_of

RATE_HZ = 16_000
PADDING = np.zeros(RATE_HZ // 5, np.float32)
PEAK = 0.6

Samples = np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass(frozen=True)
class Heard:
    """What should have been said and what was understood, as words."""

    said: Sequence[str]
    understood: Sequence[str]

    @property
    def errors(self) -> int:
        return edit_distance(self.said, self.understood)

    def __str__(self) -> str:
        return f"{' '.join(self.said)!r} was understood as {' '.join(self.understood)!r}"


class Recogniser:
    """Knows the words of nano's answers, and which of them follow one another."""

    def __init__(self, folder: Path) -> None:
        """Writes the language model and the dictionary that pocketsphinx reads into `folder`."""
        sentences = sentences_of_the_domain()
        model, dictionary = folder / "answers.arpa", folder / "answers.dict"
        model.write_text(bigram_model(sentences))
        acoustic = Path(pocketsphinx.get_model_path()) / "en-us"
        phones = phones_of({word for sentence in sentences for word in sentence}, acoustic / "cmudict-en-us.dict")
        dictionary.write_text("".join(f"{word} {spelling}\n" for word, spelling in phones))
        self.decoder = pocketsphinx.Decoder(
            hmm=str(acoustic / "en-us"),
            lm=str(model),
            dict=str(dictionary),
            samprate=RATE_HZ,
            lw=6.5,
            cmn="batch",  # nothing of one utterance is carried into the next
            loglevel="FATAL",
        )

    def listen(self, said: str, samples: Samples, rate_hz: int) -> Heard:
        wave = soxr.resample(samples, rate_hz, RATE_HZ)
        wave = np.concatenate([PADDING, wave / (np.abs(wave).max() + 1e-6) * PEAK, PADDING])
        self.decoder.start_utt()
        self.decoder.process_raw((wave * 32767).astype(np.int16).tobytes(), no_search=False, full_utt=True)
        self.decoder.end_utt()
        hypothesis = self.decoder.hyp()
        return Heard(words_of(said), words_of(hypothesis.hypstr) if hypothesis else ())


def word_error_rate(heard: Iterable[Heard]) -> float:
    heard = list(heard)
    return sum(one.errors for one in heard) / sum(len(one.said) for one in heard)


def edit_distance(expected: Sequence[str], got: Sequence[str]) -> int:
    """Fewest words to replace, insert or leave out."""
    costs = list(range(len(got) + 1))
    for row, word in enumerate(expected, start=1):
        before, costs = costs, [row]
        for column, other in enumerate(got, start=1):
            kept = before[column - 1] + (word != other)
            costs.append(min(kept, before[column] + 1, costs[column - 1] + 1))
    return costs[-1]
