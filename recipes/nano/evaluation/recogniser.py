"""An independent listener, pocketsphinx with its own English acoustic model, in two tempers.

One expects nano's sentences: a bigram model of its answers and of random phrases. It tells how well a listener does
who knows the speaker, and flatters where a sentence can be guessed from half of its words.

The other expects nano's words, some six hundred, in any order: how often each is said and nothing of what follows what.
It can only tell words by their sound, and is the honest measure. The general English model that pocketsphinx ships
would be no fairer: of random phrases it misses every other word that flite itself speaks.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal, get_args

import numpy as np
import pocketsphinx
import soxr

from recipes.nano.evaluation.language_model import any_order_model, bigram_model, phones_of, sentences_of_the_domain
from recipes.nano.evaluation.speech import Samples, Speech
from recipes.nano.evaluation.word_errors import Heard, words_of

Expects = Literal["nano's sentences", "any order"]
MEASURES: Final[tuple[Expects, ...]] = get_args(Expects)
RATE_HZ: Final = 16_000
PADDING: Final = np.zeros(RATE_HZ // 5, np.float32)
PEAK: Final = 0.6


class Recogniser:
    """Knows the words of nano's answers and, if it is to, which of them follow one another."""

    def __init__(self, folder: Path, expects: Expects = "nano's sentences") -> None:
        """Writes the language model and the dictionary that pocketsphinx reads into `folder`."""
        self.expects = expects
        sentences = sentences_of_the_domain()
        words = {word for sentence in sentences for word in sentence}
        model, dictionary = folder / "answers.arpa", folder / "answers.dict"
        model.write_text(bigram_model(sentences) if expects == "nano's sentences" else any_order_model(words))
        acoustic = Path(pocketsphinx.get_model_path()) / "en-us"
        phones = phones_of(words, acoustic / "cmudict-en-us.dict")
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
        peak = np.abs(wave).max() if len(wave) else 0.0
        wave = np.concatenate([PADDING, wave / (peak + 1e-6) * PEAK, PADDING])
        self.decoder.start_utt()
        self.decoder.process_raw((wave * 32767).astype(np.int16).tobytes(), no_search=False, full_utt=True)
        self.decoder.end_utt()
        hypothesis = self.decoder.hyp()
        return Heard(words_of(said), words_of(hypothesis.hypstr) if hypothesis else ())


def listen_to_all(speeches: Sequence[Speech], processes: int) -> dict[Expects, list[Heard]]:
    """What is understood of each, in order; in as many processes, since it takes longer than speaking."""
    parts = product(MEASURES, (speeches[start::processes] for start in range(processes)))
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        heard = list(pool.map(_listen, *zip(*parts, strict=True)))
    places = [(number % processes, number // processes) for number in range(len(speeches))]
    starts = range(0, len(heard), processes)
    return {
        measure: [heard[start + part][place] for part, place in places]
        for measure, start in zip(MEASURES, starts, strict=True)
    }


def _listen(expects: Expects, speeches: Sequence[Speech]) -> list[Heard]:
    with TemporaryDirectory() as folder:
        recogniser = Recogniser(Path(folder), expects)
    return [recogniser.listen(speech.line.text, speech.samples, speech.rate_hz) for speech in speeches]
