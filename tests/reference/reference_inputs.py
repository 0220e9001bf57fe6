"""Conversations as transformers' model inputs, built with transformers' own tokenizer and feature extractor.

Independent of antiphon.prompt and antiphon.model on purpose. transformers' Processor itself needs torchvision, so the
placeholder expansion and the patches are written out here, plainly; pictures must already have their final size.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor

PATCH, TEMPORAL, MERGE = 16, 2, 2
MARKERS = {
    "audio": "<|audio_start|><|audio_pad|><|audio_end|>",
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
}


@dataclass(frozen=True)
class Sound:
    """16 kHz, one channel, float32 (samples,)."""

    samples: np.ndarray


@dataclass(frozen=True)
class Picture:
    """uint8 (height, width, 3); sides are multiples of 32 within the checkpoint's bounds."""

    pixels: np.ndarray


@dataclass(frozen=True)
class Film:
    """uint8 (frames, height, width, 3), and its own sound for audio-in-video."""

    frames: np.ndarray
    frames_per_second: float = 2.0
    sound: Sound | None = None


Part = str | Sound | Picture | Film


@dataclass(frozen=True)
class ReferenceMessage:
    role: str
    parts: Sequence[Part]


class ReferenceInputs:
    """Builds what Qwen3OmniMoeForConditionalGeneration.generate takes, for one conversation."""

    def __init__(self, checkpoint: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.features = WhisperFeatureExtractor(
            feature_size=128,
            sampling_rate=16_000,
            hop_length=160,
            n_fft=400,
            chunk_length=300,
            return_attention_mask=True,
        )

    def build(self, messages: Sequence[ReferenceMessage]) -> dict[str, torch.Tensor]:
        media = [part for message in messages for part in message.parts if not isinstance(part, str)]
        inputs: dict[str, torch.Tensor] = {}
        frame_counts = self._add_sounds(inputs, list(_sounds(media)))
        self._add_pictures(inputs, [part for part in media if isinstance(part, Picture)])
        self._add_films(inputs, [part for part in media if isinstance(part, Film)])
        ids = self.tokenizer(self._text(messages))["input_ids"]
        inputs["input_ids"] = torch.tensor([list(self._expanded(ids, media, iter(frame_counts)))])
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return inputs

    def _text(self, messages: Sequence[ReferenceMessage]) -> str:
        turns = [f"<|im_start|>{m.role}\n{''.join(_rendered(part) for part in m.parts)}<|im_end|>\n" for m in messages]
        return "".join(turns) + "<|im_start|>assistant\n"

    def _add_sounds(self, inputs: dict[str, torch.Tensor], sounds: list[Sound]) -> list[int]:
        if not sounds:
            return []
        out = self.features(
            [sound.samples for sound in sounds],
            sampling_rate=16_000,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        inputs["input_features"] = out["input_features"]
        inputs["feature_attention_mask"] = out["attention_mask"]
        return [int(n) for n in out["attention_mask"].sum(-1)]

    def _add_pictures(self, inputs: dict[str, torch.Tensor], pictures: list[Picture]) -> None:
        if pictures:
            patched = [_patches(picture.pixels[None]) for picture in pictures]
            inputs["pixel_values"] = torch.cat([rows for rows, _ in patched])
            inputs["image_grid_thw"] = torch.tensor([grid for _, grid in patched])

    def _add_films(self, inputs: dict[str, torch.Tensor], films: list[Film]) -> None:
        if films:
            patched = [_patches(film.frames) for film in films]
            inputs["pixel_values_videos"] = torch.cat([rows for rows, _ in patched])
            inputs["video_grid_thw"] = torch.tensor([grid for _, grid in patched])
            inputs["video_second_per_grid"] = torch.tensor([TEMPORAL / film.frames_per_second for film in films])

    def _expanded(self, ids: list[int], media: list[Part], frame_counts: Iterator[int]) -> Iterator[int]:
        pads = {self._id(f"<|{kind}_pad|>"): kind for kind in MARKERS}
        waiting = iter(media)
        for token in ids:
            if token not in pads:
                yield token
                continue
            part = next(waiting)
            if isinstance(part, Sound):
                yield from [token] * _audio_tokens(next(frame_counts))
            elif isinstance(part, Picture):
                yield from [token] * _vision_tokens(part.pixels[None])
            elif isinstance(part, Film) and part.sound is None:
                yield from [token] * _vision_tokens(part.frames)
            elif isinstance(part, Film):
                yield from self._interleaved(part, _audio_tokens(next(frame_counts)))

    def _interleaved(self, film: Film, audio_tokens: int) -> Iterator[int]:
        """Each temporal patch goes before the first audio token whose index reaches its time; leftovers follow."""
        video, audio = self._id("<|video_pad|>"), self._id("<|audio_pad|>")
        per_patch = _vision_tokens(film.frames[:1])
        yield self._id("<|audio_start|>")
        told = 0
        for patch in range(math.ceil(len(film.frames) / TEMPORAL)):
            start = patch * TEMPORAL / film.frames_per_second * 13
            while told < audio_tokens and told < start:
                yield audio
                told += 1
            yield from [video] * per_patch
        yield from [audio] * (audio_tokens - told)
        yield self._id("<|audio_end|>")

    def _id(self, token: str) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(token))


def _sounds(media: list[Part]) -> Iterator[Sound]:
    for part in media:
        if isinstance(part, Sound):
            yield part
        elif isinstance(part, Film) and part.sound is not None:
            yield part.sound


def _rendered(part: Part) -> str:
    if isinstance(part, str):
        return part
    return MARKERS["audio" if isinstance(part, Sound) else "image" if isinstance(part, Picture) else "video"]


def _audio_tokens(mel_frames: int) -> int:
    whole, rest = divmod(mel_frames, 100)
    for _ in range(3):
        rest = (rest - 1) // 2 + 1
    return 13 * whole + rest


def _vision_tokens(frames: np.ndarray) -> int:
    return math.ceil(len(frames) / TEMPORAL) * (frames.shape[1] // 32) * (frames.shape[2] // 32)


def _patches(frames: np.ndarray) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """uint8 (frames, height, width, 3) -> (patches, 1536) in [-1, 1], rows in 2x2 merge blocks, and (t, h, w)."""
    values = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    if len(values) % TEMPORAL:
        values = torch.cat([values, values[-1:]])
    time, height, width = len(values) // TEMPORAL, frames.shape[1] // PATCH, frames.shape[2] // PATCH
    rows = []
    for t in range(time):
        for top in range(0, height, MERGE):
            for left in range(0, width, MERGE):
                for row in range(top, top + MERGE):
                    for column in range(left, left + MERGE):
                        y, x = row * PATCH, column * PATCH
                        cube = values[t * TEMPORAL : (t + 1) * TEMPORAL, :, y : y + PATCH, x : x + PATCH]
                        rows.append(cube.transpose(0, 1).reshape(-1))
    return torch.stack(rows), (time, height, width)
