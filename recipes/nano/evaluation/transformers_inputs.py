"""Questions as transformers' `generate` takes them, by its own tokenizer, chat template and feature extractor.

transformers' processor would do the same, but for torchvision, which it cannot be made without; so placeholders are
counted out and pictures cut into patches here. Pictures and films must have the size that the checkpoint reads.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, WhisperFeatureExtractor

from recipes.nano.domain.films import FRAME_MILLISECONDS
from recipes.nano.domain.voices import RATE_HZ
from recipes.nano.evaluation.questions import Film, Medium, Part, Picture, Question, Sound
from recipes.nano.model.audio_tower import audio_token_counts
from recipes.nano.model.vision_tower import MERGE_SIZE, PATCH_SIZE, TEMPORAL_PATCH_SIZE, patches_of_frames

PLACEHOLDERS = {Sound: "<|audio_pad|>", Picture: "<|image_pad|>", Film: "<|video_pad|>"}
KINDS = {Sound: "audio", Picture: "image", Film: "video"}
SECONDS_A_PATCH = TEMPORAL_PATCH_SIZE * FRAME_MILLISECONDS / 1000


class TransformersInputs:
    def __init__(self, checkpoint: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self.tokenizer.chat_template = (checkpoint / "chat_template.jinja").read_text()
        self._features = WhisperFeatureExtractor(feature_size=128, sampling_rate=RATE_HZ, chunk_length=300)

    def of(self, question: Question) -> dict[str, Tensor]:
        """A batch of one."""
        media = question.media
        ids = self.tokenizer(self._written(question))["input_ids"]
        inputs = {"input_ids": torch.tensor([list(self._expanded(ids, media))])}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs |= self._sounds([medium for medium in media if isinstance(medium, Sound)])
        inputs |= _seen("pixel_values", "image_grid_thw", [_frames(one) for one in media if isinstance(one, Picture)])
        films = [_frames(medium) for medium in media if isinstance(medium, Film)]
        inputs |= _seen("pixel_values_videos", "video_grid_thw", films)
        return inputs | ({"video_second_per_grid": torch.full((len(films),), SECONDS_A_PATCH)} if films else {})

    def _written(self, question: Question) -> str:
        """One placeholder a medium; what is to be answered comes next."""
        told: list[dict[str, object]] = []
        if question.system:
            told.append({"role": "system", "content": question.system})
        for turn in question.turns:
            told.append({"role": "user", "content": [_content(part) for part in turn.parts]})
            told.append({"role": "assistant", "content": turn.answer})
        return str(self.tokenizer.apply_chat_template(told[:-1], tokenize=False, add_generation_prompt=True))

    def _expanded(self, ids: list[int], media: list[Medium]) -> Iterator[int]:
        pads = set(self.tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS.values())))
        waiting = iter(media)
        for token in ids:
            yield from [token] * (_tokens(next(waiting)) if token in pads else 1)

    def _sounds(self, sounds: list[Sound]) -> dict[str, Tensor]:
        if not sounds:
            return {}
        features = self._features(
            [sound.samples.astype(np.float32) / 32768 for sound in sounds],
            sampling_rate=RATE_HZ,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return {"input_features": features["input_features"], "feature_attention_mask": features["attention_mask"]}


def _content(part: Part) -> dict[str, str]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": KINDS[type(part)]}


def _frames(medium: Picture | Film) -> Tensor:
    """(1, frames, 3, height, width) in -1…1; a picture's frame twice, for a patch"""
    frames = medium.frames if isinstance(medium, Film) else np.stack([medium.pixels] * TEMPORAL_PATCH_SIZE)
    return (torch.from_numpy(frames).float() / 127.5 - 1).movedim(-1, 1)[None]


def _seen(values: str, grids: str, seen: list[Tensor]) -> dict[str, Tensor]:
    if not seen:
        return {}
    patches = torch.cat([patches_of_frames(frames).flatten(0, 1) for frames in seen])
    return {values: patches, grids: torch.tensor([_grid(frames) for frames in seen])}


def _grid(frames: Tensor) -> tuple[int, int, int]:
    _, count, _, height, width = frames.shape
    return count // TEMPORAL_PATCH_SIZE, height // PATCH_SIZE, width // PATCH_SIZE


def _tokens(medium: Medium) -> int:
    if isinstance(medium, Sound):
        mel_frames = torch.tensor([len(medium.samples) // (RATE_HZ // 100)])
        return int(audio_token_counts(mel_frames))
    times, rows, columns = _grid(_frames(medium))
    return times * rows * columns // MERGE_SIZE**2
