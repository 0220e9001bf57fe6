"""What a sweep is told to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ModelSize(StrEnum):
    """Of random weights."""

    NANO = "nano"
    # Qwen3-Omni-30B-A3B: 35 billion parameters, 71 GB in bfloat16.
    REAL = "real"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the turns are."""

    # The example of the checkpoint that ships with the project, if none.
    sounds: Sequence[Path]
    # None leaves each as long as it is.
    seconds: float | None
    voice: str | None
    most_answer_tokens: int | None
    # Only a platform that is started here can be told.
    most_speech_frames: int | None


@dataclass(frozen=True, slots=True)
class Measured:
    """What is measured, and how long."""

    # None starts a platform with the checkpoint.
    base_url: str | None
    # None is the one that ships with the project.
    checkpoint: Path | None
    # Instead of a checkpoint.
    random_size: ModelSize | None
    weights_seed: int
    levels: Sequence[int]
    turns: int
    # 0 leaves the baseline out.
    baseline_turns: int
    threads: int
