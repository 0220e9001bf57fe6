"""Spoken utterances on disk: shards of some hundred, written whole or not at all."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recipes.nano.domain.sentences import Line
from recipes.nano.domain.voices import Integers


@dataclass(frozen=True)
class Utterance:
    """`samples` is one channel; the folder that it lies in says at which rate."""

    text: str
    voice: str
    samples: Integers


def shards(folder: Path) -> list[Path]:
    """In the order in which they were written; none where the folder is missing."""
    return sorted(folder.glob("[0-9][0-9][0-9][0-9][0-9].npz"))


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"{index:05}.npz"


def write_shard(path: Path, utterances: Iterable[Utterance]) -> None:
    utterances = list(utterances)
    write_arrays(
        path,
        texts=np.array([utterance.text for utterance in utterances], np.str_),
        voices=np.array([utterance.voice for utterance in utterances], np.str_),
        lengths=np.array([len(utterance.samples) for utterance in utterances], np.int64),
        samples=np.concatenate([utterance.samples for utterance in utterances]).astype(np.int16),
    )


def write_arrays(path: Path, **arrays: NDArray[np.generic]) -> None:
    """Under a temporary name first: a shard that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    unfinished.replace(path)


def read_shard(path: Path) -> list[Utterance]:
    with np.load(path, allow_pickle=False) as shard:
        waves = np.split(shard["samples"], np.cumsum(shard["lengths"])[:-1])
        return [Utterance(*line, wave) for line, wave in zip(_lines(shard), waves, strict=True)]


def read_lines(path: Path) -> list[Line]:
    """What is said in a shard, without reading the sound of it."""
    with np.load(path, allow_pickle=False) as shard:
        return _lines(shard)


def _lines(shard: np.lib.npyio.NpzFile) -> list[Line]:
    return list(zip(map(str, shard["texts"]), map(str, shard["voices"]), strict=True))
