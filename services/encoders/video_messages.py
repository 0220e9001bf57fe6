"""What the encoders and the process that decodes one video say to each other over its pipes.

Plain numbers and bytes only: who reads them must not have to trust who wrote them.
"""

import json
import struct
from dataclasses import asdict, dataclass
from enum import Enum
from fractions import Fraction
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import InvalidInput, TooLarge, UnreadableMedia

HEADER: Final = struct.Struct(">cI")
_SHAPE: Final = struct.Struct(">II")
_REFUSALS: Final = {kind.__name__: kind for kind in (InvalidInput, TooLarge, UnreadableMedia)}


# What reading a message raises when its writer did not keep to the rules.
MALFORMED: Final = (ValueError, KeyError, TypeError, struct.error)


class Kind(Enum):
    READY = b"R"
    FRAME = b"F"
    FRAMES_END = b"D"
    SOUND = b"S"
    REFUSAL = b"X"
    END = b"E"


@dataclass(frozen=True, slots=True)
class VideoJob:
    """Bounds are held while the file is read: a few bytes may unfold to any size."""

    byte_count: int
    # Frames to take from a second, as a fraction.
    fps_numerator: int
    fps_denominator: int
    with_sound: bool
    most_seconds: float
    most_source_frames: int
    most_frame_pixels: int

    @property
    def fps(self) -> Fraction:
        return Fraction(self.fps_numerator, self.fps_denominator)


def write_job(stream: IO[bytes], job: VideoJob, data: bytes) -> None:
    stream.write(json.dumps(asdict(job)).encode() + b"\n")
    stream.write(data)
    stream.flush()


def read_job(stream: IO[bytes]) -> tuple[VideoJob, bytes]:
    job = VideoJob(**json.loads(stream.readline()))
    return job, stream.read(job.byte_count)


def write(stream: IO[bytes], kind: Kind, payload: bytes = b"") -> None:
    stream.write(HEADER.pack(kind.value, len(payload)) + payload)
    stream.flush()


def frame_payload(pixels: NDArray[np.uint8]) -> bytes:
    """pixels (height, width, 3)"""
    return _SHAPE.pack(*pixels.shape[:2]) + pixels.tobytes()


def frame_of(payload: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(payload, np.uint8, offset=_SHAPE.size).reshape(*_SHAPE.unpack_from(payload), 3)


def sound_payload(samples: NDArray[np.float32], rate_hz: int) -> bytes:
    """samples (samples, channels)"""
    return _SHAPE.pack(rate_hz, samples.shape[1]) + samples.astype("<f4").tobytes()


def sound_of(payload: bytes) -> tuple[int, NDArray[np.float32]]:
    """Rate in Hz, and (samples, channels)."""
    rate_hz, channels = _SHAPE.unpack_from(payload)
    return rate_hz, np.frombuffer(payload, "<f4", offset=_SHAPE.size).reshape(-1, channels)


def refusal_payload(error: InvalidInput) -> bytes:
    return json.dumps([type(error).__name__, error.message, error.code]).encode()


def refusal_of(payload: bytes) -> InvalidInput:
    kind, message, code = json.loads(payload)
    return _REFUSALS[kind](message, code=code)


def unreadable(came: str) -> UnreadableMedia:
    return UnreadableMedia(f"The video cannot be read: expected an mp4, mov, webm, mkv, avi or gif file; {came}.")
