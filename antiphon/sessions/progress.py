"""How far a turn came, as integers: they are all that another replica needs to go on with it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import InternalError

# Of one frame of speech: 80 ms.
CODES_PER_FRAME: Final = 16
_ID: Final = np.dtype("<i4")
_CODE: Final = np.dtype("<i2")


def _no_ids() -> NDArray[np.int32]:
    return np.zeros(0, _ID)


def _no_frames() -> NDArray[np.int16]:
    return np.zeros((0, CODES_PER_FRAME), _CODE)


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    # Of the text: (ids,).
    token_ids: NDArray[np.int32] = field(default_factory=_no_ids)
    # Of the speech: (frames, CODES_PER_FRAME).
    frames: NDArray[np.int16] = field(default_factory=_no_frames)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Progress):
            return NotImplemented
        return np.array_equal(self.token_ids, other.token_ids) and np.array_equal(self.frames, other.frames)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(len(self.token_ids) or len(self.frames))

    @property
    def size_bytes(self) -> int:
        return self.token_ids.size * _ID.itemsize + self.frames.size * _CODE.itemsize

    @classmethod
    def joined(cls, parts: "Sequence[Progress]") -> "Progress":
        if not parts:
            return cls()
        return cls(np.concatenate([part.token_ids for part in parts]), np.concatenate([part.frames for part in parts]))


def pack_ids(token_ids: Sequence[int] | NDArray[np.int32]) -> bytes:
    """Little-endian, four bytes each."""
    return np.asarray(token_ids, _ID).tobytes()


def pack_frames(frames: NDArray[np.int16]) -> bytes:
    """Little-endian, two bytes a code."""
    if frames.ndim != 2 or frames.shape[1] != CODES_PER_FRAME:
        raise InternalError(f"Frames: expected the shape (frames, {CODES_PER_FRAME}); came {frames.shape}.")
    return np.asarray(frames, _CODE).tobytes()


def unpack_ids(data: bytes) -> NDArray[np.int32]:
    return np.frombuffer(data, _ID)


def unpack_frames(data: bytes) -> NDArray[np.int16]:
    return np.frombuffer(data, _CODE).reshape(-1, CODES_PER_FRAME)
