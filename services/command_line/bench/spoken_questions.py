"""The sounds that are asked: recordings brought to one length, each time with other noise that nobody can hear.

A platform that remembers media and prompts would answer a question that it has heard before sooner than a new one.
"""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray


class SpokenQuestions:
    def __init__(self, sounds: Sequence[Path], folder: Path, *, seconds: float | None = None) -> None:
        """seconds: of each question, said again until they are full; unset leaves each as it is. `folder` takes what
        is made."""
        self._sounds, self._folder, self._seconds = sounds, folder, seconds
        self._numbers = count()

    def next(self, number: int) -> Path:
        """A wav file of the recording for turn `number`, unlike any before."""
        unlike = next(self._numbers)
        samples, rate = soundfile.read(self._sounds[number % len(self._sounds)], dtype="int16", always_2d=True)
        mixed = _lasting(samples.mean(axis=1), rate, self._seconds)
        noise = np.random.default_rng(unlike).integers(-1, 2, len(mixed))  # a step of the 65536 that there are
        file = self._folder / f"question-{unlike}.wav"
        soundfile.write(file, np.clip(mixed + noise, -32_768, 32_767).astype(np.int16), rate)
        return file


def _lasting(samples: NDArray[np.float64], rate: int, seconds: float | None) -> NDArray[np.float64]:
    return samples if seconds is None else np.resize(samples, round(seconds * rate))
