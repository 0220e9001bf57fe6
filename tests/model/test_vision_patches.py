"""Sizes and patches of images and videos against transformers' image processor."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from antiphon.errors import CheckpointError, InvalidInput
from antiphon.model.config import OmniConfig
from antiphon.model.vision_patches import PatchGrid, PixelBounds, VisionPreprocessor

BOUNDS = [(3_136, 12_845_056), (9_216, 9_216), (16_384, 16_384), (131_072, 786_432), (1_024, 4_096)]


def preprocessor(checkpoint: Path) -> VisionPreprocessor:
    return VisionPreprocessor.from_checkpoint(checkpoint, OmniConfig.from_checkpoint(checkpoint).thinker.vision)


def draw_image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def channels_first(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(pixels, -1, -3).copy())


@pytest.mark.parametrize("bounds", BOUNDS)
def test_sizes_equal_transformers(bounds: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    for height, width in generator.integers(1, 3_000, (400, 2)).tolist():
        if max(height, width) <= 200 * min(height, width):
            expected = smart_resize(height, width, 32, *bounds)
            assert PixelBounds(*bounds).resized(height, width, 32) == expected, (height, width)


def test_a_ribbon_is_refused() -> None:
    with pytest.raises(InvalidInput, match="came 4020 x 20 pixels"):
        PixelBounds(3_136, 12_845_056).resized(20, 4_020, 32)


def reference_image(pixels: np.ndarray, bounds: PixelBounds) -> tuple[torch.Tensor, PatchGrid]:
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": bounds.minimum, "longest_edge": bounds.maximum},
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    out = processor([Image.fromarray(pixels)], return_tensors="pt")
    return out["pixel_values"], PatchGrid(*out["image_grid_thw"][0].tolist())


def test_an_image_of_the_right_size_equals_transformers(nano: Path) -> None:
    pixels = draw_image(128, 128)
    patched = preprocessor(nano).image(channels_first(pixels))
    rows, grid = reference_image(pixels, preprocessor(nano).image_bounds)
    assert patched.grid == grid
    torch.testing.assert_close(patched.rows, rows, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(200, 90), (333, 777), (50, 60), (1, 1)])
def test_a_resized_image_is_within_one_level_of_pillow(size: tuple[int, int], nano: Path) -> None:
    """Pillow rounds between its two passes; torchvision, whose result is ours, differs from it by one level at most."""
    pixels = draw_image(*size)
    patched = preprocessor(nano).image(channels_first(pixels))
    rows, grid = reference_image(pixels, preprocessor(nano).image_bounds)
    assert patched.grid == grid
    levels = (patched.rows - rows).abs() * 127.5
    assert levels.max() < 1.01
    assert (levels > 0.5).float().mean() < 0.01


def test_the_last_frame_of_an_odd_video_is_repeated(nano: Path) -> None:
    frames = torch.stack([channels_first(draw_image(96, 96)) // (index + 1) for index in range(5)])
    odd, even = preprocessor(nano).video(frames), preprocessor(nano).video(torch.cat([frames, frames[-1:]]))
    assert odd.grid == PatchGrid(3, 6, 6)
    assert torch.equal(odd.rows, even.rows)


def test_temporal_parts_are_the_video(nano: Path) -> None:
    video = preprocessor(nano).video(torch.stack([channels_first(draw_image(96, 96)) // (i + 1) for i in range(6)]))
    parts = video.temporal_parts(2)
    assert [part.grid.time for part in parts] == [2, 1]
    assert torch.equal(torch.cat([part.rows for part in parts]), video.rows)


def test_images_and_videos_have_bounds_of_their_own(nano: Path) -> None:
    ours = preprocessor(nano)
    assert ours.image_grid(480, 640) == PatchGrid(1, 6, 8)
    assert ours.video_grid(7, 480, 480) == PatchGrid(4, 6, 6)
    assert ours.token_count(PatchGrid(4, 6, 6)) == 36


def test_the_released_checkpoints_file_is_read_too(nano: Path, tmp_path: Path) -> None:
    shutil.copy(nano / "config.json", tmp_path)
    released = {"min_pixels": 3136, "max_pixels": 12845056, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(released))
    ours = preprocessor(tmp_path)
    assert ours.image_bounds == PixelBounds(3136, 12845056)
    assert ours.video_bounds == PixelBounds(131072, 786432), "what transformers' processor gives videos by default"


def test_a_checkpoint_without_sizes_is_refused(nano: Path, tmp_path: Path) -> None:
    shutil.copy(nano / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        preprocessor(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(CheckpointError):
        preprocessor(tmp_path)
