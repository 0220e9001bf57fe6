"""What is to be spoken, and what was heard of it."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from recipes.nano.evaluation.questions import Question

Kind = Literal["domain", "phrase", "everyday"]
Samples = np.ndarray[tuple[int], np.dtype[np.float32]]

# nano's voices, and whom each was learnt from.
VOICES: Final = {"ethan": "rms", "chelsie": "slt", "aiden": "awb"}
# Of what nano says.
RATE_HZ: Final = 24_000
# Twelve seconds: speech that is still going on then does not end by itself.
MOST_FRAMES: Final = 150
FRAME_SAMPLES: Final = 1920


@dataclass(frozen=True)
class Line:
    """A sentence, and the voice and seed that it is spoken with."""

    kind: Kind
    text: str
    voice: str
    seed: int


@dataclass(frozen=True, eq=False)
class SpokenQuestion:
    """A question to be answered aloud."""

    kind: Kind
    question: Question
    voice: str
    seed: int

    def line(self, transcript: str) -> Line:
        return Line(self.kind, transcript, self.voice, self.seed)


@dataclass(frozen=True, eq=False)
class Speech:
    """samples: one channel at `rate_hz`. `ended`: by itself, not at the limit."""

    line: Line
    samples: Samples
    rate_hz: int = RATE_HZ
    ended: bool = True

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate_hz
