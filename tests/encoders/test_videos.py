"""Video files to frames at a steady rate and to their sound; broken and oversized ones to clear errors."""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from antiphon.errors import ContextTooLong, InvalidInput, TooLarge, Unavailable, UnreadableMedia
from antiphon.model.config import OmniConfig
from antiphon.model.vision_patches import VisionPreprocessor
from services.encoders.config import EncodersSettings
from services.encoders.video_process import VideoProcesses
from services.encoders.video_sampling import TimedFrame, sampled
from services.encoders.videos import VideoReader
from tests.end_to_end.conversations import film, matroska_bytes
from tests.reference.reference_inputs import Film

EXAMPLES = Path(__file__).resolve().parents[2] / "models" / "nano" / "examples"


@pytest.fixture(scope="module")
def processes() -> Iterator[VideoProcesses]:
    opened = VideoProcesses()
    yield opened
    opened.close()


@pytest.fixture
def reader(tiny_checkpoint: Path, processes: VideoProcesses) -> VideoReader:
    return reader_with(tiny_checkpoint, processes)


def reader_with(checkpoint: Path, processes: VideoProcesses, **bounds: float) -> VideoReader:
    settings = EncodersSettings(checkpoint=checkpoint).model_copy(update=bounds)
    vision = OmniConfig.from_checkpoint(checkpoint).thinker.vision
    return VideoReader(settings, VisionPreprocessor.from_checkpoint(checkpoint, vision), processes)


def channels_first(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(frames, 3, 1).copy())


def gif_bytes(frames: np.ndarray, milliseconds: int) -> bytes:
    images = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=milliseconds)
    return buffer.getvalue()


def plain_frames(count: int, height: int = 32, width: int = 64) -> np.ndarray:
    """Each of one colour of its own, which every codec keeps."""
    shades = np.linspace(20, 235, count).astype(np.uint8)
    return np.broadcast_to(shades[:, None, None, None], (count, height, width, 3)).copy()


def encoded_video(frames: np.ndarray, fps: int, container: str, codec: str, pixel_format: str = "yuv420p") -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize("seconds_of_sound", [None, 1.3, 3.0])
def test_lossless_frames_and_sound_come_out_as_they_went_in(
    seconds_of_sound: float | None, reader: VideoReader
) -> None:
    sent = film(5, seconds_of_sound=seconds_of_sound)
    video = reader.read(matroska_bytes(sent), 2.0, with_sound=True)
    assert torch.equal(video.frames, channels_first(sent.frames))
    if sent.sound is None:
        assert video.sound is None
    else:
        assert video.sound is not None
        assert np.array_equal(video.sound, sent.sound.samples)


def test_the_sound_is_left_alone_unless_asked_for(reader: VideoReader) -> None:
    assert reader.read(matroska_bytes(film(seconds_of_sound=1.0)), 2.0, with_sound=False).sound is None


@pytest.mark.parametrize("rate", [1.0, 2.0, 3.0, 7.0, 24.0, 29.97])
def test_taking_as_many_frames_as_there_are_takes_each_once(rate: float, reader: VideoReader) -> None:
    sent = Film(film(12).frames, rate)
    fps = float(Fraction(rate).limit_denominator(1000))
    assert torch.equal(reader.read(matroska_bytes(sent), fps, with_sound=False).frames, channels_first(sent.frames))


def test_a_gif_is_a_video(reader: VideoReader, nano: Path, processes: VideoProcesses) -> None:
    frames = plain_frames(6)
    video = reader.read(gif_bytes(frames, 500), 2.0, with_sound=True)
    assert torch.equal(video.frames, channels_first(frames))
    assert video.sound is None
    shipped = reader_with(nano, processes).read((EXAMPLES / "film.gif").read_bytes(), 2.0, with_sound=False)
    assert shipped.frames.shape == (8, 3, 96, 96)


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "mpeg4"), ("mov", "mpeg4"), ("webm", "libvpx-vp9"), ("avi", "mpeg4")]
)
def test_every_container_is_sampled_at_the_rate_asked_for(container: str, codec: str, reader: VideoReader) -> None:
    frames = plain_frames(24)
    video = reader.read(encoded_video(frames, 8, container, codec), 2.0, with_sound=False)
    assert video.frames.shape == (6, 3, 32, 64)
    means = video.frames.float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(means, channels_first(frames[::4]).float().mean(dim=(1, 2, 3)), atol=6, rtol=0)


def test_a_slow_video_repeats_its_frames(reader: VideoReader) -> None:
    frames = plain_frames(3)
    video = reader.read(gif_bytes(frames, 1_000), 2.0, with_sound=False)
    assert torch.equal(video.frames, channels_first(frames.repeat(2, axis=0)))


def test_frames_are_sized_for_the_model(reader: VideoReader) -> None:
    video = reader.read(matroska_bytes(film(4, 120, 200)), 2.0, with_sound=False)
    assert video.frames.shape == (4, 3, 32, 64), "at most 64 x 64 pixels"


def test_a_film_held_upright_is_turned_upright(reader: VideoReader) -> None:
    frames = np.zeros((2, 32, 64, 3), np.uint8)
    frames[:, :, 32:] = 220
    whole = bytearray(encoded_video(frames, 2, "mp4", "mpeg4"))
    matrix = whole.index(b"tkhd") + 4 + 40
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    whole[matrix : matrix + 36] = clockwise
    video = reader.read(bytes(whole), 2.0, with_sound=False)
    assert video.frames.shape == (2, 3, 64, 32)
    assert video.frames[0, :, :24].max() < 50, "what was left is above"
    assert video.frames[0, :, 40:].min() > 200


def timed(*frames: tuple[float, float | None]) -> Iterator[TimedFrame]:
    for index, (seen_at, duration) in enumerate(frames):
        last = None if duration is None else Fraction(duration).limit_denominator(1000)
        yield TimedFrame(Fraction(seen_at).limit_denominator(1000), last, partial(torch.tensor, index))


@pytest.mark.parametrize(
    ("frames", "fps", "expected"),
    [
        (timed((0, 0.5), (0.5, 0.5), (1.0, 0.5)), 2, [0, 1, 2]),
        (timed((0, 0.333), (0.333, 0.334), (0.667, 0.333)), 3, [0, 1, 2]),
        (timed((0, None)), 2, [0]),
        (timed((0, 0)), 2, [0]),
        (timed((0, 0.1), (0.1, 0.1), (0.2, 2.0)), 2, [0, 2, 2, 2, 2]),
        (timed((0, 0.01), (0.01, 0.01), (0.02, 0.01)), 2, [0]),
        (timed((0, 0.4), (0.7, 0.4), (0.6, 0.4), (1.2, 0.4)), 2, [0, 0, 2, 3]),
        (timed(), 2, []),
    ],
)
def test_what_a_viewer_would_see_is_taken(frames: Iterator[TimedFrame], fps: int, expected: list[int]) -> None:
    assert [int(pixels) for pixels in sampled(frames, Fraction(fps))] == expected


@pytest.mark.parametrize(
    ("bounds", "kind", "message"),
    [
        ({"video_seconds": 1.0}, InvalidInput, "at most 1 s are accepted"),
        ({"video_frames": 3}, InvalidInput, "at most 3 are taken, at 2 a second"),
        ({"video_source_frames": 3}, TooLarge, "at most 3 are accepted"),
        ({"video_frame_pixels": 2_000}, TooLarge, "at most 2000 pixels a frame are accepted; it has 64 x 32"),
        ({"request_tokens": 4}, ContextTooLong, "more than the 4 tokens"),
        ({"audio_seconds": 0.5}, InvalidInput, "The sound is too long"),
    ],
)
def test_bounds_are_held_while_the_file_is_read(
    bounds: dict[str, float],
    kind: type[InvalidInput],
    message: str,
    tiny_checkpoint: Path,
    processes: VideoProcesses,
) -> None:
    reader = reader_with(tiny_checkpoint, processes, **bounds)
    with pytest.raises(kind, match=message):
        reader.read(matroska_bytes(film(6, seconds_of_sound=1.0)), 2.0, with_sound=True)


def test_a_video_that_nobody_waits_for_any_more_is_left(reader: VideoReader) -> None:
    asked = iter([True, True, True])
    impatient = replace(reader, is_wanted=lambda: next(asked, False))
    with pytest.raises(Unavailable, match="hung up"):
        impatient.read(matroska_bytes(film(6)), 2.0, with_sound=False)


def test_a_video_that_takes_too_long_to_read_is_refused(tiny_checkpoint: Path, processes: VideoProcesses) -> None:
    reader = reader_with(tiny_checkpoint, processes, video_reading_seconds=1e-9)
    with pytest.raises(TooLarge, match="s to read"):
        reader.read(matroska_bytes(film(6)), 2.0, with_sound=False)


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
BROKEN = [
    b"",
    b"not a video",
    matroska_bytes(film())[:200],
    encoded_video(plain_frames(4), 2, "mp4", "mpeg4")[:100],
    gif_bytes(plain_frames(2), 500)[:20],
    PLAYLIST,
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"\x00\x00\x00\x18ftypmp42" + PLAYLIST,
    b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(100),
]


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_video_is_refused_with_what_would_be(data: bytes, reader: VideoReader) -> None:
    with pytest.raises(UnreadableMedia, match="expected an mp4, mov, webm, mkv, avi or gif file"):
        reader.read(data, 2.0, with_sound=False)


def test_a_container_without_pictures_is_refused(reader: VideoReader) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        track = output.add_stream("pcm_s16le", rate=16_000, layout="mono")
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
        chunk.sample_rate = 16_000
        output.mux(track.encode(chunk))
        output.mux(track.encode(None))
    with pytest.raises(UnreadableMedia, match="holds no pictures"):
        reader.read(buffer.getvalue(), 2.0, with_sound=True)


def test_damaged_files_never_raise_anything_else(reader: VideoReader) -> None:
    random = np.random.default_rng(1)
    for whole in (matroska_bytes(film(4, seconds_of_sound=1.0)), encoded_video(plain_frames(6), 2, "mp4", "mpeg4")):
        for _ in range(20):
            damaged = bytearray(whole)
            for place in random.integers(0, len(damaged), 8):
                damaged[place] = random.integers(0, 256)
            with suppress(InvalidInput):
                reader.read(bytes(damaged), 2.0, with_sound=True)


def test_a_file_that_brings_the_decoder_down_harms_nobody(
    reader: VideoReader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crashing = tmp_path / "crashing_decoder.py"
    crashing.write_text(
        "import os, sys\n"
        "from services.encoders import video_messages as messages\n"
        "messages.write(sys.stdout.buffer, messages.Kind.READY)\n"
        "messages.read_job(sys.stdin.buffer)\n"
        "os.kill(os.getpid(), 11)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("services.encoders.video_process._PROGRAM", "crashing_decoder")
    crashed = replace(reader, processes=VideoProcesses())
    with pytest.raises(UnreadableMedia, match="brought the decoder down"):
        crashed.read(matroska_bytes(film()), 2.0, with_sound=False)
    crashed.processes.close()
    monkeypatch.undo()
    assert len(reader.read(matroska_bytes(film(3)), 2.0, with_sound=False).frames) == 3


def test_the_decoder_is_told_nothing_of_its_parents_environment(
    reader: VideoReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_SECRET", "key")
    processes = VideoProcesses()
    processes.start()
    assert processes._spare is not None
    environment = Path(f"/proc/{processes._spare.pid}/environ").read_bytes()
    processes.close()
    assert b"ANTIPHON_SECRET" not in environment
