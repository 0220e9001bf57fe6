"""Video files (mp4, mov, webm, mkv, avi, gif) to frames at a steady rate, sized for the model, and to their sound."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from antiphon.errors import AntiphonError, ContextTooLong, InvalidInput, TooLarge, Unavailable
from antiphon.model.audio_features import MIN_SAMPLES
from antiphon.model.vision_patches import VisionPreprocessor
from services.encoders import video_messages
from services.encoders.config import EncodersSettings
from services.encoders.sounds import Samples, to_16_khz
from services.encoders.video_messages import MALFORMED, Kind, VideoJob, unreadable
from services.encoders.video_process import VideoProcesses

_Messages = Iterator[tuple[Kind, bytes]]


@dataclass(frozen=True, slots=True)
class Video:
    frames: Tensor  # uint8 (frames, 3, height, width), as the model sees them
    # None without a sound track, or when it was not asked for.
    sound: Samples | None


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class VideoReader:
    """The file is decoded in another process, frame by frame; here it is sized and bounded."""

    settings: EncodersSettings
    preprocessor: VisionPreprocessor
    processes: VideoProcesses
    # Asked at every frame: a long video should not be read for a caller who has hung up.
    is_wanted: Callable[[], bool] = _always

    def read(self, data: bytes, fps: float, *, with_sound: bool) -> Video:
        """One frame every 1/fps seconds: the one that a viewer would see then. Raises InvalidInput or a kind of it."""
        rate = Fraction(fps).limit_denominator(1000)
        must_end_by = time.monotonic() + self.settings.video_reading_seconds
        job = self._job(data, rate, with_sound=with_sound)
        try:
            with self.processes.decoding(job, data, lambda: self._check_wait(must_end_by)) as messages:
                return Video(self._frames(messages, rate), self._sound(messages))
        except AntiphonError:
            raise
        except MALFORMED as error:
            raise unreadable("the bytes are broken") from error

    def _job(self, data: bytes, fps: Fraction, *, with_sound: bool) -> VideoJob:
        settings = self.settings
        return VideoJob(
            byte_count=len(data),
            fps_numerator=fps.numerator,
            fps_denominator=fps.denominator,
            with_sound=with_sound,
            most_seconds=settings.video_seconds,
            most_source_frames=settings.video_source_frames,
            most_frame_pixels=settings.video_frame_pixels,
        )

    def _check_wait(self, must_end_by: float) -> None:
        if not self.is_wanted():
            raise Unavailable("The caller has hung up; the video is read no further.")
        if time.monotonic() > must_end_by:
            raise TooLarge(
                f"The video takes more than {self.settings.video_reading_seconds:g} s to read. Cut it or shrink it."
            )

    def _frames(self, messages: _Messages, fps: Fraction) -> Tensor:
        taken: list[Tensor] = []
        for payload in _payloads(messages, Kind.FRAME, Kind.FRAMES_END):
            taken.append(self._sized(video_messages.frame_of(payload)))
            self._check_taken(taken, fps)
        if not taken:
            raise unreadable("it holds no frame")
        return torch.stack(taken)

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

    def _sized(self, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
        """pixels (height, width, 3) -> (3, height, width)"""
        return self.preprocessor.resized_video(torch.from_numpy(np.moveaxis(pixels, 2, 0).copy())[None])[0]

    def _sound(self, messages: _Messages) -> Samples | None:
        blocks = (video_messages.sound_of(payload) for payload in _payloads(messages, Kind.SOUND, Kind.END))
        first = next(blocks, None)
        if first is None:
            return None
        rate_hz, samples = first
        samples = to_16_khz(_chained(samples, blocks), rate_hz, self.settings)
        return samples if len(samples) >= MIN_SAMPLES else None


def _payloads(messages: _Messages, wanted: Kind, last: Kind) -> Iterator[bytes]:
    for kind, payload in messages:
        if kind is Kind.REFUSAL:
            raise video_messages.refusal_of(payload)
        if kind is last:
            return
        if kind is not wanted:
            raise unreadable("the bytes are broken")
        yield payload


def _chained(first: Samples, rest: Iterator[tuple[int, Samples]]) -> Iterator[Samples]:
    yield first
    yield from (samples for _, samples in rest)
