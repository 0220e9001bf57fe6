"""The program that decodes one video, in a process of its own, because a hostile file can bring the decoder down.

Reads a job from its input, writes frames and sound to its output (video_messages), and ends. Knows no torch.
"""

import io
import resource
import sys
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from typing import BinaryIO, Final

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from antiphon.errors import InvalidInput, TooLarge
from services.encoders import video_messages
from services.encoders.video_messages import Kind, VideoJob
from services.encoders.video_sampling import TimedFrame, sampled

_MEMORY_BYTES: Final = 4 << 30
_OPEN_FILES: Final = 16


def main() -> None:
    _limit_resources()
    output = sys.stdout.buffer
    video_messages.write(output, Kind.READY)
    job, data = video_messages.read_job(sys.stdin.buffer)
    try:
        _decode(job, data, output)
    except InvalidInput as refusal:
        video_messages.write(output, Kind.REFUSAL, video_messages.refusal_payload(refusal))
    except Exception:  # on broken bytes the library raises whatever it likes
        broken = video_messages.unreadable("the bytes are broken")
        video_messages.write(output, Kind.REFUSAL, video_messages.refusal_payload(broken))


def _limit_resources() -> None:
    """A decoder gone wild takes itself down, not the machine; it has no business with other files."""
    for kind, most in (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(kind, (most, most))


def _decode(job: VideoJob, data: bytes, output: BinaryIO) -> None:
    with _opened(data) as container:
        if not container.streams.video:
            raise video_messages.unreadable("it holds no pictures")
        for pixels in sampled(_timed_frames(container, job), job.fps):
            video_messages.write(output, Kind.FRAME, video_messages.frame_payload(pixels))
    video_messages.write(output, Kind.FRAMES_END)
    if job.with_sound:
        with _opened(data) as container:
            for block, rate_hz in _sound(container):
                video_messages.write(output, Kind.SOUND, video_messages.sound_payload(block, rate_hz))
    video_messages.write(output, Kind.END)


def _timed_frames(container: InputContainer, job: VideoJob) -> Iterator[TimedFrame[NDArray[np.uint8]]]:
    stream, start = container.streams.video[0], None
    for count, frame in enumerate(container.decode(stream)):
        _check_frame(frame, count, job)
        timestamp = _timestamp(frame, stream, count)
        start = timestamp if start is None else start
        seen_at = timestamp - start
        if seen_at > job.most_seconds:
            raise InvalidInput(
                f"The video is too long: at most {job.most_seconds:g} s are accepted. Cut it.", code="media_too_long"
            )
        yield TimedFrame(seen_at, _duration(frame, stream), partial(_upright, frame))


def _check_frame(frame: av.VideoFrame, count: int, job: VideoJob) -> None:
    if frame.width * frame.height > job.most_frame_pixels:
        raise TooLarge(
            f"The video is too large: at most {job.most_frame_pixels} pixels a frame are accepted; "
            f"it has {frame.width} x {frame.height}."
        )
    if count >= job.most_source_frames:
        raise TooLarge(f"The video has too many frames: at most {job.most_source_frames} are accepted. Cut it.")


def _upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(height, width, 3)"""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return np.rot90(pixels, round(frame.rotation / 90) % 4)  # both turn counter-clockwise


def _sound(container: InputContainer) -> Iterator[tuple[NDArray[np.float32], int]]:
    if not container.streams.audio:
        return
    stream = container.streams.audio[0]
    to_floats = av.AudioResampler(format="fltp")
    for frame in container.decode(stream):
        for part in to_floats.resample(frame):
            yield part.to_ndarray().T, stream.rate


def _timestamp(frame: av.VideoFrame, stream: av.VideoStream, count: int) -> Fraction:
    """In seconds; of a frame without one, by its number."""
    if frame.pts is not None and frame.time_base:
        return Fraction(frame.pts) * Fraction(frame.time_base)
    return count / Fraction(stream.average_rate or 25)


def _duration(frame: av.VideoFrame, stream: av.VideoStream) -> Fraction | None:
    if frame.duration and frame.time_base:
        return Fraction(frame.duration) * Fraction(frame.time_base)
    return Fraction(1 / stream.average_rate) if stream.average_rate else None


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
    raise video_messages.unreadable("the bytes are broken or of another kind")


if __name__ == "__main__":
    main()
