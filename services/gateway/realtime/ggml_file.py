"""Reads a file of ggml tensors with the head of a Silero detector: little-endian, as whisper.cpp writes it."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import CheckpointError

_MAGIC: Final = b"lmgg"
# By the number of a tensor's type.
_TYPES: Final[Mapping[int, str]] = {0: "<f4", 1: "<f2"}


@dataclass(frozen=True, slots=True)
class DetectorFile:
    kind: str
    window_samples: int
    # By name, in float32; the last axis varies fastest.
    tensors: dict[str, NDArray[np.float32]]


def read_detector(path: Path) -> DetectorFile:
    """Raises CheckpointError where it is none."""
    try:
        return _read(path.read_bytes())
    except (OSError, struct.error, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: expected a Silero detector's weights as ggml tensors; {error!r}.") from error


def _read(data: bytes) -> DetectorFile:
    if data[:4] != _MAGIC:
        raise ValueError(f"it begins with {data[:4]!r}")
    (length,) = struct.unpack_from("<i", data, 4)
    kind, at = data[8 : 8 + length].decode(), 8 + length
    # Three numbers of its version, then its sizes: of each layer channels in, channels out, kernel.
    window_samples, _, layers = struct.unpack_from("<3i", data, at + 12)
    at += 4 * (3 + 3 + 3 * layers + 4)
    tensors: dict[str, NDArray[np.float32]] = {}
    while at < len(data):
        axes, length, number = struct.unpack_from("<3i", data, at)
        shape = struct.unpack_from(f"<{axes}i", data, at + 12)[::-1]
        at += 12 + 4 * axes + length
        found = np.frombuffer(data, _TYPES[number], prod(shape), at)
        tensors[data[at - length : at].decode()] = found.astype(np.float32).reshape(shape)
        at += found.nbytes
    return DetectorFile(kind, window_samples, tensors)
