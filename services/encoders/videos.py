"""Video files (mp4, mov, webm, mkv, avi, gif) to frames at a steady rate, sized for the model, and to their sound."""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import av
import numpy as np
import torch
from av.container import InputContainer
from torch import Tensor

from antiphon.errors import AntiphonError, ContextTooLong, InvalidInput, TooLarge, Unavailable, UnreadableMedia
from antiphon.model.audio_features import MIN_SAMPLES
from antiphon.model.vision_patches import VisionPreprocessor
from services.encoders.config import EncodersSettings
from services.encoders.sounds import Samples, to_16_khz

# Containers round times to milliseconds; a frame this early still counts as being there.
_ROUNDING = Fraction(2, 1000)


@dataclass(frozen=True, slots=True)
class Video:
    frames: Tensor  # uint8 (frames, 3, height, width), as the model sees them
    # None without a sound track, or when it was not asked for.
    sound: Samples | None


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class VideoReader:
    settings: EncodersSettings
    preprocessor: VisionPreprocessor
    # Asked at every frame: a long video should not be read for a caller who has hung up.
    is_wanted: Callable[[], bool] = _always

    def read(self, data: bytes, fps: float, *, with_sound: bool) -> Video:
        """One frame every 1/fps seconds: the one that a viewer would see then."""
        try:
            with _opened(data) as container:
                frames = self._frames(container, Fraction(fps).limit_denominator(1000))
            if not with_sound:
                return Video(frames, None)
            with _opened(data) as container:
                return Video(frames, self._sound(container))
        except AntiphonError:
            raise
        except Exception as error:  # on broken bytes the library raises whatever it likes
            raise _unreadable("the bytes are broken") from error

    def _frames(self, container: InputContainer, fps: Fraction) -> Tensor:
        if not container.streams.video:
            raise _unreadable("it holds no pictures")
        taken: list[Tensor] = []
        for sized in sampled(self._timed_frames(container), fps):
            taken.append(sized)
            self._check_taken(taken, fps)
        if not taken:
            raise _unreadable("it holds no frame")
        return torch.stack(taken)

    def _timed_frames(self, container: InputContainer) -> Iterator["TimedFrame"]:
        stream, start = container.streams.video[0], None
        must_end_by = time.monotonic() + self.settings.video_reading_seconds
        for count, frame in enumerate(container.decode(stream)):
            self._check_time(must_end_by)
            self._check_frame(frame, count)
            timestamp = _timestamp(frame, stream, count)
            start = timestamp if start is None else start
            seen_at = timestamp - start
            if seen_at > self.settings.video_seconds:
                raise InvalidInput(
                    f"The video is too long: at most {self.settings.video_seconds:g} s are accepted. Cut it.",
                    code="media_too_long",
                )
            yield TimedFrame(seen_at, _duration(frame, stream), partial(self._sized, frame))

    def _check_time(self, must_end_by: float) -> None:
        if not self.is_wanted():
            raise Unavailable("The caller has hung up; the video is read no further.")
        if time.monotonic() > must_end_by:
            raise TooLarge(
                f"The video takes more than {self.settings.video_reading_seconds:g} s to read. Cut it or shrink it."
            )

    def _check_frame(self, frame: av.VideoFrame, count: int) -> None:
        most_pixels, most_frames = self.settings.video_frame_pixels, self.settings.video_source_frames
        if frame.width * frame.height > most_pixels:
            raise TooLarge(
                f"The video is too large: at most {most_pixels} pixels a frame are accepted; "
                f"it has {frame.width} x {frame.height}."
            )
        if count >= most_frames:
            raise TooLarge(f"The video has too many frames: at most {most_frames} are accepted. Cut it.")

    def _check_taken(self, taken: list[Tensor], fps: Fraction) -> None:
        if len(taken) > self.settings.video_frames:
            raise InvalidInput(
                f"The video has too many frames: at most {self.settings.video_frames} are taken, at {float(fps):g} "
                "a second. Cut it, or ask for fewer frames a second.",
                code="media_too_long",
            )
        tokens = self.preprocessor.token_count(self.preprocessor.video_grid(len(taken), *taken[0].shape[1:]))
        if tokens > self.settings.request_tokens:
            raise ContextTooLong(
                f"The video takes more than the {self.settings.request_tokens} tokens that one request may have. "
                "Cut it, or ask for fewer frames a second."
            )

    def _sized(self, frame: av.VideoFrame) -> Tensor:
        pixels = frame.to_ndarray(format="rgb24")
        upright = np.rot90(pixels, round(frame.rotation / 90) % 4)  # both turn counter-clockwise
        return self.preprocessor.resized_video(torch.from_numpy(np.moveaxis(upright, 2, 0).copy())[None])[0]

    def _sound(self, container: InputContainer) -> Samples | None:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        to_floats = av.AudioResampler(format="fltp")
        blocks = (part.to_ndarray().T for frame in container.decode(stream) for part in to_floats.resample(frame))
        samples = to_16_khz(blocks, stream.rate, self.settings)
        return samples if len(samples) >= MIN_SAMPLES else None


@dataclass(frozen=True, slots=True)
class TimedFrame:
    # Seconds after the first frame, and how long it is seen.
    seen_at: Fraction
    duration: Fraction | None
    pixels: Callable[[], Tensor]


def sampled(frames: Iterator[TimedFrame], fps: Fraction) -> Iterator[Tensor]:
    """The frame that is seen at 0, 1/fps, 2/fps ... seconds, until the last has been seen for its duration."""
    count = 0
    for frame, until in _with_ends(frames, 1 / fps):
        pixels: Tensor | None = None
        while count / fps + _ROUNDING < until:
            pixels = frame.pixels() if pixels is None else pixels
            yield pixels
            count += 1


def _with_ends(frames: Iterator[TimedFrame], last_duration: Fraction) -> Iterator[tuple[TimedFrame, Fraction]]:
    current: TimedFrame | None = None
    for following in frames:
        if current is not None:
            yield current, following.seen_at
        current = following
    if current is not None:
        yield current, current.seen_at + max(current.duration or last_duration, 2 * _ROUNDING)


def _timestamp(frame: av.VideoFrame, stream: av.VideoStream, count: int) -> Fraction:
    """In seconds; of a frame without one, by its number."""
    if frame.pts is not None and frame.time_base:
        return Fraction(frame.pts) * Fraction(frame.time_base)
    return count / Fraction(stream.average_rate or 25)


def _duration(frame: av.VideoFrame, stream: av.VideoStream) -> Fraction | None:
    if frame.duration and frame.time_base:
        return Fraction(frame.duration) * Fraction(frame.time_base)
    return 1 / Fraction(stream.average_rate) if stream.average_rate else None


def _opened(data: bytes) -> InputContainer:
    """Names the demuxer itself: some that FFmpeg might guess, such as playlists, would open other files."""
    opened: InputContainer = av.open(io.BytesIO(data), "r", format=_demuxer(data[:16]))
    return opened


def _demuxer(head: bytes) -> str:
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    raise _unreadable("the bytes are broken or of another kind")


def _unreadable(came: str) -> UnreadableMedia:
    return UnreadableMedia(f"The video cannot be read: expected an mp4, mov, webm, mkv, avi or gif file; {came}.")
