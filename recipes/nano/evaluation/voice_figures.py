"""How well speech was understood, and whether it was sound: figures of many speeches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from recipes.nano.evaluation.recogniser import Expects, listen_to_all
from recipes.nano.evaluation.speakers import SpeakerEar
from recipes.nano.evaluation.speech import Kind, Speech
from recipes.nano.evaluation.word_errors import Heard, word_error_rate

CLIPPED: Final = 0.999
ALL_VOICES: Final = "all"


@dataclass(frozen=True)
class Understood:
    """Of the sentences of one kind, by one voice or all; word_error_rate: by what the recogniser expects."""

    kind: Kind
    voice: str
    sentences: int
    words: int
    word_error_rate: dict[Expects, float]
    # Without any error, by the recogniser that expects any order.
    whole_sentences: int


@dataclass(frozen=True)
class Soundness:
    """Shares of all speeches; loudness is their median."""

    ended_by_themselves: float
    clipped: float
    right_voice: float
    rms: float
    # Against the same sentences by the teacher, where he said them.
    length: float | None


@dataclass(frozen=True)
class VoiceFigures:
    of: str
    understood: list[Understood]
    soundness: Soundness

    @property
    def sentences(self) -> int:
        return sum(row.sentences for row in self._of_all_voices)

    def word_error_rate(self, measure: Expects) -> float:
        """Of all voices, each kind of sentences counting for its words."""
        rows = self._of_all_voices
        return sum(row.word_error_rate[measure] * row.words for row in rows) / sum(row.words for row in rows)

    @property
    def _of_all_voices(self) -> list[Understood]:
        return [row for row in self.understood if row.voice == ALL_VOICES]


@dataclass(frozen=True)
class Listener:
    ear: SpeakerEar
    processes: int

    def figures(self, of: str, speeches: Sequence[Speech], teacher: Sequence[Speech] = ()) -> VoiceFigures:
        """teacher: the same lines, one by one, as the synthesiser says them."""
        heard = listen_to_all(speeches, self.processes)
        voices = [ALL_VOICES, *dict.fromkeys(speech.line.voice for speech in speeches)]
        kinds: list[Kind] = list(dict.fromkeys(speech.line.kind for speech in speeches))
        understood = [_understood(kind, voice, speeches, heard) for kind in kinds for voice in voices]
        return VoiceFigures(of, [row for row in understood if row.words], self._soundness(speeches, teacher))

    def _soundness(self, speeches: Sequence[Speech], teacher: Sequence[Speech]) -> Soundness:
        return Soundness(
            ended_by_themselves=_share(speeches, lambda speech: speech.ended),
            clipped=_share(speeches, lambda speech: bool((np.abs(speech.samples) >= CLIPPED).any())),
            right_voice=_share(speeches, lambda speech: self.ear.who(speech) == speech.line.voice),
            rms=float(np.median([_rms(speech) for speech in speeches])),
            length=_seconds(speeches) / _seconds(teacher) if teacher else None,
        )


def _understood(kind: Kind, voice: str, speeches: Sequence[Speech], heard: dict[Expects, list[Heard]]) -> Understood:
    chosen = [
        number
        for number, speech in enumerate(speeches)
        if speech.line.kind == kind and voice in (speech.line.voice, ALL_VOICES)
    ]
    of_each = {measure: [heard[measure][number] for number in chosen] for measure in heard}
    strictest = of_each["any order"]
    return Understood(
        kind,
        voice,
        sentences=len(chosen),
        words=sum(len(one.said) for one in strictest),
        word_error_rate={measure: word_error_rate(each) for measure, each in of_each.items()},
        whole_sentences=sum(one.errors == 0 for one in strictest),
    )


def _share(speeches: Sequence[Speech], holds: Callable[[Speech], bool]) -> float:
    return sum(map(holds, speeches)) / len(speeches)


def _seconds(speeches: Sequence[Speech]) -> float:
    return sum(speech.seconds for speech in speeches)


def _rms(speech: Speech) -> float:
    return float(np.sqrt(np.mean(speech.samples**2))) if len(speech.samples) else 0.0
