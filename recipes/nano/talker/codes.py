"""Speech as codes on disk: shards of some hundred utterances, written whole or not at all."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Codes = np.ndarray[tuple[int, int], np.dtype[np.uint8]]


@dataclass(frozen=True)
class Coded:
    """`codes` uint8 (frames, 16) at 12.5 frames a second."""

    text: str
    voice: str
    codes: Codes


def write_codes(path: Path, utterances: Iterable[Coded]) -> None:
    """Under a temporary name first: a shard that is there is whole."""
    utterances = list(utterances)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        np.savez(
            file,
            texts=np.array([one.text for one in utterances], np.str_),
            voices=np.array([one.voice for one in utterances], np.str_),
            lengths=np.array([len(one.codes) for one in utterances], np.int64),
            codes=np.concatenate([one.codes for one in utterances]).astype(np.uint8),
        )
    unfinished.replace(path)


def read_codes(path: Path) -> list[Coded]:
    with np.load(path, allow_pickle=False) as shard:
        parts = np.split(shard["codes"], np.cumsum(shard["lengths"])[:-1])
        named = zip(map(str, shard["texts"]), map(str, shard["voices"]), parts, strict=True)
        return [Coded(*one) for one in named]
