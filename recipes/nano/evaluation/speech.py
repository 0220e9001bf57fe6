"""What is to be spoken, and what was heard of it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["domain", "phrase"]
Samples = np.ndarray[tuple[int], np.dtype[np.float32]]


@dataclass(frozen=True)
class Line:
    """A sentence that no voice was taught, and the voice and seed that it is spoken with."""

    kind: Kind
    text: str
    voice: str
    seed: int


@dataclass(frozen=True)
class Speech:
    """samples: one channel at `rate_hz`. `ended`: by itself, not at the limit."""

    line: Line
    samples: Samples
    rate_hz: int
    ended: bool = True

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate_hz
