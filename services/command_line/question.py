"""What `antiphon ask` asks, as the body of an OpenAI chat completion with every medium inside."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

SOUND_FORMATS: Final = {".wav": "wav", ".mp3": "mp3", ".flac": "flac", ".ogg": "ogg", ".opus": "ogg"}
IMAGE_TYPES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
}
VIDEO_TYPES: Final = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".avi": "video/x-msvideo",
    ".gif": "video/gif",
}


class UnknownMediumError(Exception):
    """A file whose name does not tell a medium that the platform reads."""


@dataclass(frozen=True, slots=True)
class Question:
    text: str | None = None
    sounds: tuple[Path, ...] = ()
    images: tuple[Path, ...] = ()
    videos: tuple[Path, ...] = ()
    # The videos' own sound tracks are heard too.
    hears_videos: bool = False
    is_spoken_back: bool = False
    # None is the model's default.
    voice: str | None = None
    # 0 is greedy; None is the model's default.
    temperature: float | None = None
    seed: int | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.text or self.sounds or self.images or self.videos)

    def about_sound(self, sound: Path) -> "Question":
        return replace(self, sounds=(sound,))


def request_body(question: Question, model: str) -> Mapping[str, object]:
    """Raises UnknownMediumError and OSError."""
    body: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": list(_parts(question))}],
        "modalities": ["text", "audio"] if question.is_spoken_back else ["text"],
        "stream": True,
        "stream_options": {"include_usage": True, "include_timings": True},
    }
    if question.is_spoken_back:
        # OpenAI's field asks for a voice; any of its own names takes the nearest of the model's.
        body["audio"] = {"voice": question.voice or "ethan", "format": "pcm16"}
    if question.hears_videos:
        body["mm_processor_kwargs"] = {"use_audio_in_video": True}
    if question.temperature is not None:
        body["temperature"] = question.temperature
    if question.seed is not None:
        body["seed"] = question.seed
    return body


def _parts(question: Question) -> Iterator[dict[str, object]]:
    for sound in question.sounds:
        sound_format = _known(sound, SOUND_FORMATS, "a sound")
        yield {"type": "input_audio", "input_audio": {"data": _base64(sound), "format": sound_format}}
    for image in question.images:
        yield {"type": "image_url", "image_url": {"url": _data_url(image, _known(image, IMAGE_TYPES, "an image"))}}
    for video in question.videos:
        yield {"type": "video_url", "video_url": {"url": _data_url(video, _known(video, VIDEO_TYPES, "a video"))}}
    if question.text:
        yield {"type": "text", "text": question.text}


def _known(file: Path, types: Mapping[str, str], kind: str) -> str:
    known = types.get(file.suffix.lower())
    if known is None:
        raise UnknownMediumError(f"Expected {kind} ({', '.join(sorted(types))}); found {file.name}.")
    return known


def _data_url(file: Path, media_type: str) -> str:
    return f"data:{media_type};base64,{_base64(file)}"


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
