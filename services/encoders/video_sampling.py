"""Which frames of a video a viewer would see at a steady rate."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

# Containers round times to milliseconds; a frame this early still counts as being there.
_ROUNDING = Fraction(2, 1000)

PixelsT = TypeVar("PixelsT")


@dataclass(frozen=True, slots=True)
class TimedFrame(Generic[PixelsT]):
    # Seconds after the first frame, and how long it is seen.
    seen_at: Fraction
    duration: Fraction | None
    pixels: Callable[[], PixelsT]


def sampled(frames: Iterator[TimedFrame[PixelsT]], fps: Fraction) -> Iterator[PixelsT]:
    """The frame that is seen at 0, 1/fps, 2/fps ... seconds, until the last has been seen for its duration."""
    count = 0
    for frame, until in _with_ends(frames, 1 / fps):
        pixels: PixelsT | None = None
        while count / fps + _ROUNDING < until:
            pixels = frame.pixels() if pixels is None else pixels
            yield pixels
            count += 1


def _with_ends(
    frames: Iterator[TimedFrame[PixelsT]], last_duration: Fraction
) -> Iterator[tuple[TimedFrame[PixelsT], Fraction]]:
    current: TimedFrame[PixelsT] | None = None
    for following in frames:
        if current is not None:
            yield current, following.seen_at
        current = following
    if current is not None:
        yield current, current.seen_at + max(current.duration or last_duration, 2 * _ROUNDING)
