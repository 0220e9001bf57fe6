"""The conversations of the end-to-end tests: as the reference takes them, and as an OpenAI client sends them.

Everything travels losslessly (16-bit wav, png, ffv1 in Matroska), so both see the same numbers.
"""

import base64
import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

from tests.reference.reference_inputs import Film, Part, Picture, ReferenceMessage, Sound


def sound(seconds: float, seed: int = 0) -> Sound:
    """A wavering tone with some noise, in steps of 16-bit PCM."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16_000)) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * (180 + 40 * seed) * time * (1 + 0.1 * np.sin(4.4 * time)))
    wave = (tone + 0.02 * random.standard_normal(len(time))) * (0.3 + 0.7 * np.abs(np.sin(np.pi * time)))
    return Sound((wave * 32767).astype(np.int16).astype(np.float32) / 32768)


def picture(height: int = 64, width: int = 64, seed: int = 0) -> Picture:
    return Picture(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def film(
    frames: int = 5, height: int = 32, width: int = 64, seed: int = 0, seconds_of_sound: float | None = None
) -> Film:
    pixels = np.random.default_rng(seed).integers(0, 255, (frames, height, width, 3), dtype=np.uint8)
    return Film(pixels, 2.0, None if seconds_of_sound is None else sound(seconds_of_sound, seed + 7))


def user(*parts: Part) -> ReferenceMessage:
    return ReferenceMessage("user", parts)


def assistant(text: str) -> ReferenceMessage:
    return ReferenceMessage("assistant", [text])


def system(text: str) -> ReferenceMessage:
    return ReferenceMessage("system", [text])


def openai_messages(messages: Sequence[ReferenceMessage]) -> list[dict[str, Any]]:
    return [_openai_message(message) for message in messages]


def _openai_message(message: ReferenceMessage) -> dict[str, Any]:
    if message.role != "user":
        return {"role": message.role, "content": message.parts[0]}
    return {"role": "user", "content": [_openai_part(part) for part in message.parts]}


def _openai_part(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Sound):
        return {"type": "input_audio", "input_audio": {"data": _base64(wav_bytes(part)), "format": "wav"}}
    if isinstance(part, Picture):
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_base64(png_bytes(part))}"}}
    return {"type": "video_url", "video_url": {"url": f"data:video/x-matroska;base64,{_base64(matroska_bytes(part))}"}}


def wav_bytes(part: Sound) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, (part.samples * 32768).astype(np.int16), 16_000, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def flac_bytes(seconds: float) -> bytes:
    """Of silence, which takes next to nothing."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(round(seconds * 16_000), np.int16), 16_000, format="FLAC")
    return buffer.getvalue()


def png_bytes(part: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(part.pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def matroska_bytes(part: Film) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        rate = Fraction(part.frames_per_second).limit_denominator(1000)
        video = container.add_stream("ffv1", rate=rate)
        video.height, video.width, video.pix_fmt = part.frames.shape[1], part.frames.shape[2], "bgr0"
        track = container.add_stream("pcm_s16le", rate=16_000, layout="mono") if part.sound else None
        for index, pixels in enumerate(part.frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track is not None and part.sound is not None:
            samples = (part.sound.samples * 32768).astype(np.int16)[None]
            chunk = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            chunk.sample_rate, chunk.pts = 16_000, 0
            container.mux(track.encode(chunk))
            container.mux(track.encode(None))
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
