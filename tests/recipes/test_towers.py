"""The batched towers give what transformers' own encoders give, one sound or picture at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import WhisperFeatureExtractor

from recipes.nano.model.audio_tower import audio_token_counts, run_audio_tower
from recipes.nano.model.log_mel import LogMel
from recipes.nano.model.vision_tower import PatchPositions, patches_of_frames, run_vision_tower
from tests.recipes.random_model import random_nano
from tests.reference.reference_inputs import Film, Picture, ReferenceInputs, ReferenceMessage

# Less than a chunk, whole chunks, a last chunk of one frame, and past the eight seconds of an attention window.
FRAME_COUNTS = [1, 37, 99, 100, 101, 250, 500, 799, 801, 1234]
# float32 sums in another order; rows have a deviation near one.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def thinker(nano: Path) -> Any:
    return random_nano(nano).thinker


def encoded_alone(thinker: Any, mel: Tensor) -> Tensor:
    """mel (bins, frames) -> (tokens, width), by transformers."""
    rows: Tensor = thinker.model.audio_tower(mel, feature_lens=torch.tensor([mel.shape[1]])).last_hidden_state
    return rows


def padded(sounds: list[Tensor]) -> Tensor:
    """(bins, frames) each -> (sounds, bins, whole chunks)"""
    longest = -(-max(sound.shape[1] for sound in sounds) // 100) * 100
    return torch.stack([F.pad(sound, (0, longest - sound.shape[1])) for sound in sounds])


@torch.no_grad()
def test_sounds_of_any_length_are_encoded_as_each_is_alone(thinker: Any) -> None:
    sounds = [torch.randn(128, frames, generator=torch.Generator().manual_seed(frames)) for frames in FRAME_COUNTS]
    together = run_audio_tower(thinker.model.audio_tower, padded(sounds), torch.tensor(FRAME_COUNTS))
    for sound, rows in zip(sounds, together, strict=True):
        alone = encoded_alone(thinker, sound)
        torch.testing.assert_close(rows[: len(alone)], alone, atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
def test_shorter_batches_need_no_windows(thinker: Any) -> None:
    sound = torch.randn(128, 300, generator=torch.Generator().manual_seed(1))
    rows = run_audio_tower(thinker.model.audio_tower, sound[None], torch.tensor([300]))
    torch.testing.assert_close(rows[0], encoded_alone(thinker, sound), atol=TOLERANCE, rtol=TOLERANCE)


def test_tokens_of_a_sound_are_counted_as_its_rows_come_out(thinker: Any) -> None:
    counted = audio_token_counts(torch.tensor(FRAME_COUNTS))
    with torch.no_grad():
        encoded = [len(encoded_alone(thinker, torch.zeros(128, frames))) for frames in FRAME_COUNTS]
    assert counted.tolist() == encoded


def test_a_row_without_sound_leaves_every_gradient_finite(thinker: Any) -> None:
    tower, mel = thinker.model.audio_tower, torch.zeros(2, 128, 200)
    rows = run_audio_tower(tower, mel, torch.tensor([0, 137]))
    gradients = torch.autograd.grad(rows[1].square().sum() + 0 * rows[0].sum(), list(tower.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_no_forward_waits_for_a_value(thinker: Any) -> None:
    """A CUDA graph may not read one on the host; tensors without values cannot be read at all."""
    positions = PatchPositions.of_grid(thinker.model.visual, 8, 8)
    front_end = LogMel()
    with FakeTensorMode(allow_non_fake_inputs=True):
        counts = torch.tensor([3, 4]) * 16_000
        mel = front_end(torch.zeros(2, 144_000), counts)
        heard = run_audio_tower(thinker.model.audio_tower, mel, counts // 160)
        merged, _ = run_vision_tower(thinker.model.visual, torch.zeros(2, 64, 1536), positions)
        with pytest.raises(DataDependentOutputException):
            counts[0].item()
    assert heard.shape == (2, 9 * 13, 256)
    assert merged.shape == (2, 16, 256)


@torch.no_grad()
def test_half_precision_stays_close(thinker: Any) -> None:
    """As training runs it: bfloat16 products, float32 between them."""
    sound = torch.randn(1, 128, 300, generator=torch.Generator().manual_seed(4))
    patches = torch.rand(1, 64, 1536, generator=torch.Generator().manual_seed(4)) * 2 - 1
    positions = PatchPositions.of_grid(thinker.model.visual, 8, 8)

    def encoded() -> list[Tensor]:
        heard = run_audio_tower(thinker.model.audio_tower, sound, torch.tensor([300]))
        return [heard.float(), run_vision_tower(thinker.model.visual, patches, positions)[0].float()]

    exact = encoded()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoded()
    for rows, close in zip(exact, rounded, strict=True):
        assert F.cosine_similarity(rows, close, dim=-1).min() > 0.999


def test_chunks_must_be_whole(thinker: Any) -> None:
    with pytest.raises(ValueError, match="chunks of 100 mel frames"):
        run_audio_tower(thinker.model.audio_tower, torch.zeros(1, 128, 150), torch.tensor([150]))


def test_spectra_of_a_batch_are_those_of_each_sound_alone() -> None:
    extract = WhisperFeatureExtractor(feature_size=128, chunk_length=300, return_attention_mask=True)
    dice = np.random.default_rng(3)
    sounds = [dice.normal(0, 0.1, count).astype(np.float32) for count in (4_000, 16_000, 23_117, 31_999)]
    sounds.append(sounds[0] * np.linspace(0, 1, 4_000, dtype=np.float32) ** 6)  # mostly under the floor
    longest = 32_000
    rows = torch.stack([F.pad(torch.from_numpy(s), (0, longest - len(s))) for s in sounds])
    together = LogMel()(rows, torch.tensor([len(sound) for sound in sounds]))
    for sound, features in zip(sounds, together, strict=True):
        alone = extract(
            sound,
            sampling_rate=16_000,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        frames = int(alone["attention_mask"].sum())
        torch.testing.assert_close(features[:, :frames], alone["input_features"][0], atol=2e-4, rtol=0)
        assert not features[:, frames:].any()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


def as_frames(pixels: np.ndarray) -> Tensor:
    """uint8 (frames, height, width, 3) -> float (1, frames, 3, height, width) in -1…1"""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)[None].float() / 127.5 - 1


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(128, 128), (64, 192), (32, 32)])
def test_pictures_are_encoded_as_transformers_does(nano: Path, thinker: Any, height: int, width: int) -> None:
    picture = noise(height, width, 3)
    inputs = ReferenceInputs(nano).build([ReferenceMessage("user", [Picture(picture)])])
    tower = thinker.model.visual
    patches = patches_of_frames(as_frames(np.stack([picture, picture])))
    torch.testing.assert_close(patches[0], inputs["pixel_values"], atol=1e-6, rtol=0)
    merged, deepstack = run_vision_tower(tower, patches, PatchPositions.of_grid(tower, height // 16, width // 16))
    expected = tower(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
    torch.testing.assert_close(merged[0], expected.pooler_output, atol=TOLERANCE, rtol=TOLERANCE)
    assert len(deepstack) == len(expected.deepstack_features) == 3
    for rows, level in zip(deepstack, expected.deepstack_features, strict=True):
        torch.testing.assert_close(rows[0], level, atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
def test_films_are_encoded_patch_by_patch_as_transformers_does(nano: Path, thinker: Any) -> None:
    frames = noise(6, 96, 96, 3)
    inputs = ReferenceInputs(nano).build([ReferenceMessage("user", [Film(frames)])])
    tower = thinker.model.visual
    patches = patches_of_frames(as_frames(frames))
    merged, deepstack = run_vision_tower(tower, patches, PatchPositions.of_grid(tower, 6, 6))
    expected = tower(inputs["pixel_values_videos"], grid_thw=inputs["video_grid_thw"])
    torch.testing.assert_close(merged.flatten(0, 1), expected.pooler_output, atol=TOLERANCE, rtol=TOLERANCE)
    for rows, level in zip(deepstack, expected.deepstack_features, strict=True):
        torch.testing.assert_close(rows.flatten(0, 1), level, atol=TOLERANCE, rtol=TOLERANCE)
