"""The Thinker's forward over a batch: sounds heard, pictures seen, their rows put where they stand, the text read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from recipes.nano.domain import films, pictures
from recipes.nano.model.audio_tower import audio_token_counts, run_audio_tower
from recipes.nano.model.log_mel import RATE_HZ, SAMPLES_PER_FRAME, LogMel
from recipes.nano.model.parts import ThinkerParts
from recipes.nano.model.text_model import run_text_model
from recipes.nano.model.vision_tower import PATCH_SIZE, PatchPositions, patches_of_frames, run_vision_tower
from recipes.nano.thinker.augmentation import Augmentation
from recipes.nano.thinker.examples import Batch
from recipes.nano.thinker.media import Banks, Sights


@dataclass(frozen=True)
class Heard:
    """rows (sounds, tokens, width), of which the first `counts` int64 (sounds) of each are the sound's."""

    rows: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Reading:
    """logits (B, L, vocabulary) of what comes after each token; kept (B, L, width): rows after `keep_after_layer`."""

    logits: Tensor
    kept: Tensor | None
    heard: Heard | None


@dataclass(frozen=True)
class _Seen:
    """rows (all, width), and as many for each level of deepstack"""

    rows: Tensor
    deepstack: Sequence[Tensor]


class Reader:
    """Holds no weights of its own; computes where those of `parts` are."""

    def __init__(self, parts: ThinkerParts, banks: Banks, longest_sound_seconds: int) -> None:
        self._parts, self._banks = parts, banks
        self._longest_samples = longest_sound_seconds * RATE_HZ
        self._embedding = cast(nn.Embedding, parts.text_model.embed_tokens)
        self._log_mel = LogMel().to(self._embedding.weight.device)
        self._picture_positions = self._square(pictures.SIDE_PIXELS)
        self._film_positions = self._square(films.SIDE_PIXELS)

    def read(
        self, batch: Batch, *, augmentation: Augmentation | None = None, keep_after_layer: int | None = None
    ) -> Reading:
        heard = self._hear(batch.sounds, augmentation) if len(batch.sounds) else None
        with autocast(batch.ids.device):
            seen = self._see(batch) if len(batch.pictures) + len(batch.films) else None
            rows = self._embedding(batch.ids)
            if heard is not None:
                rows = _placed(heard.rows.flatten(0, 1), batch.sound_rows, rows)
            if seen is not None:
                rows = _placed(seen.rows, batch.sight_rows, rows)
            hidden, kept = run_text_model(
                self._parts.text_model,
                rows,
                batch.positions,
                deepstack=[_placed(level, batch.sight_rows, rows) for level in seen.deepstack] if seen else (),
                visual_mask=batch.sight_rows >= 0,
                keep_after_layer=keep_after_layer,
            )
            return Reading(self._parts.head(hidden), kept, heard)

    def _hear(self, sounds: Tensor, augmentation: Augmentation | None) -> Heard:
        """sounds: int64 (n), their numbers. Spectra are made in full precision: bfloat16 would blur the energies."""
        lengths = self._banks.sounds.lengths[sounds]
        samples = self._banks.sounds.take(sounds, self._longest_samples)
        if augmentation is not None:
            samples = augmentation.of_samples(samples, lengths)
        frames = self._log_mel(samples, lengths)
        if augmentation is not None:
            frames = augmentation.of_frames(frames)
        frame_counts = lengths // SAMPLES_PER_FRAME
        with autocast(sounds.device):
            rows = run_audio_tower(self._parts.audio_tower, frames, frame_counts)
        return Heard(rows, audio_token_counts(frame_counts))

    def _see(self, batch: Batch) -> _Seen:
        """All pictures, then all films."""
        kinds = (
            (self._banks.pictures, batch.pictures, self._picture_positions),
            (self._banks.films, batch.films, self._film_positions),
        )
        seen = [self._look(bank, chosen, positions) for bank, chosen, positions in kinds if len(chosen)]
        levels = zip(*(one.deepstack for one in seen), strict=True)
        return _Seen(torch.cat([one.rows for one in seen]), [torch.cat(level) for level in levels])

    def _look(self, bank: Sights, chosen: Tensor, positions: PatchPositions) -> _Seen:
        patches = patches_of_frames(bank.take(chosen))
        rows, deepstack = run_vision_tower(self._parts.vision_tower, patches, positions)
        return _Seen(rows.flatten(0, 1), [level.flatten(0, 1) for level in deepstack])

    def _square(self, side_pixels: int) -> PatchPositions:
        side = side_pixels // PATCH_SIZE
        return PatchPositions.of_grid(self._parts.vision_tower, side, side)


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU; on a CPU it would be slower than float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False)


def _placed(rows: Tensor, places: Tensor, around: Tensor) -> Tensor:
    """rows (n, width), places int64 (B, L), -1 for none, around (B, L, width)"""
    found = rows.index_select(0, places.clamp(min=0).flatten()).view_as(around)
    return torch.where((places >= 0)[..., None], found.to(around.dtype), around)
