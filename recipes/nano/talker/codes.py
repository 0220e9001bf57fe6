"""Speech as codes on disk: shards of some hundred utterances, written whole or not at all."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipes.nano.speech.store import write_arrays

Codes = np.ndarray[tuple[int, int], np.dtype[np.uint8]]


@dataclass(frozen=True)
class Coded:
    """`codes` uint8 (frames, 16) at 12.5 frames a second."""

    text: str
    voice: str
    codes: Codes


def write_codes(path: Path, utterances: Iterable[Coded]) -> None:
    utterances = list(utterances)
    write_arrays(
        path,
        texts=np.array([one.text for one in utterances], np.str_),
        voices=np.array([one.voice for one in utterances], np.str_),
        lengths=np.array([len(one.codes) for one in utterances], np.int64),
        codes=np.concatenate([one.codes for one in utterances]).astype(np.uint8),
    )


def read_codes(path: Path) -> list[Coded]:
    with np.load(path, allow_pickle=False) as shard:
        parts = np.split(shard["codes"], np.cumsum(shard["lengths"])[:-1])
        named = zip(map(str, shard["texts"]), map(str, shard["voices"]), parts, strict=True)
        return [Coded(*one) for one in named]
