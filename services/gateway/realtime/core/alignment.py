"""Which words of a spoken answer have been heard after so many samples of it.

The Talker tells no times of words, so they are estimated. Every character takes the same share of the speech, an
ideograph as much as three letters. While an answer goes on its length is not known: then a character takes what it
took in the answers before. A word cannot have been heard before its text existed, so each text also notes how many
samples had been handed out when it came.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final

# 15 letters a second at 24 kHz, as English is spoken.
DEFAULT_SAMPLES_PER_LETTER: Final = 1600.0
_LETTERS_PER_IDEOGRAPH: Final = 3.0
_IDEOGRAPHS: Final = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
# A word with what follows it up to the next, or one ideograph.
_WORD: Final = re.compile(rf"[{_IDEOGRAPHS}]|[^\s{_IDEOGRAPHS}]+")
_IDEOGRAPH: Final = re.compile(f"[{_IDEOGRAPHS}]")


@dataclass(frozen=True, slots=True)
class Alignment:
    """starts: (characters before a text, samples handed out when it came), in order."""

    starts: tuple[tuple[int, int], ...]
    samples_per_letter: float

    def heard(self, transcript: str, sample_count: int) -> str:
        """The words of which all has been heard; a word too many was cut off, so it is left out."""
        known = self._known_characters(sample_count, len(transcript))
        kept, spoken_letters = 0, 0.0
        for word in _WORD.finditer(transcript):
            spoken_letters += letters(transcript[kept : word.end()])
            # Half a letter is allowed for rounding: all of the sound is all of the words.
            if word.end() > known or (spoken_letters - 0.5) * self.samples_per_letter > sample_count:
                break
            kept = word.end()
        return transcript[:kept]

    def _known_characters(self, sample_count: int, everything: int) -> int:
        """Of texts that came before the last sample that was heard."""
        index = bisect_right(self.starts, sample_count, key=lambda start: start[1])
        return self.starts[index][0] if index < len(self.starts) else everything


def letters(text: str) -> float:
    return len(text) + (_LETTERS_PER_IDEOGRAPH - 1) * len(_IDEOGRAPH.findall(text))


class Aligner:
    """Collects one answer's texts and samples."""

    def __init__(self, samples_per_letter: float) -> None:
        self._samples_per_letter = samples_per_letter
        self._starts: list[tuple[int, int]] = []
        self._texts: list[str] = []
        self._characters = self.sample_count = 0

    def text(self, text: str) -> None:
        self._starts.append((self._characters, self.sample_count))
        self._texts.append(text)
        self._characters += len(text)

    def sound(self, sample_count: int) -> None:
        self.sample_count += sample_count

    @property
    def transcript(self) -> str:
        return "".join(self._texts)

    def alignment(self, *, is_whole: bool) -> Alignment:
        return Alignment(tuple(self._starts), self.samples_per_letter(is_whole=is_whole))

    def samples_per_letter(self, *, is_whole: bool) -> float:
        count = letters(self.transcript)
        if is_whole and count and self.sample_count:
            return self.sample_count / count
        return self._samples_per_letter
