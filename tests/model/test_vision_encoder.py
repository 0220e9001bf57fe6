"""The vision encoder against transformers' vision tower: images, videos, parts of videos, many at once."""

from functools import cache
from pathlib import Path

import pytest
import torch

from antiphon.model.config import OmniConfig
from antiphon.model.vision_encoder import VisionEncoder, VisionRows
from antiphon.model.vision_patches import PatchedFrames, PatchGrid
from antiphon.model.weights import Checkpoint
from tests.reference.transformers_reference import TransformersReference

TOLERANCE = 2e-5
GRIDS = [PatchGrid(1, 2, 2), PatchGrid(1, 8, 8), PatchGrid(1, 4, 12), PatchGrid(1, 22, 2), PatchGrid(4, 6, 6)]


@cache
def load(checkpoint: Path) -> VisionEncoder:
    return VisionEncoder.load(Checkpoint(checkpoint), OmniConfig.from_checkpoint(checkpoint), dtype=torch.float32)


def draw(grid: PatchGrid, seed: int = 0) -> PatchedFrames:
    rows = torch.rand(grid.patches, 1536, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return PatchedFrames(rows, grid)


def reference_rows(reference: TransformersReference, frames: PatchedFrames) -> VisionRows:
    with torch.no_grad():
        out = reference.model.thinker.model.visual(frames.rows, grid_thw=torch.tensor([list(frames.grid)]))
    return VisionRows(out.pooler_output, tuple(out.deepstack_features))


def assert_same(rows: VisionRows, expected: VisionRows, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(rows.rows, expected.rows, atol=tolerance, rtol=1e-5)
    assert len(rows.deepstack) == len(expected.deepstack) == 3
    for level, wanted in zip(rows.deepstack, expected.deepstack, strict=True):
        torch.testing.assert_close(level, wanted, atol=tolerance, rtol=1e-5)


@pytest.mark.parametrize("which", ["tiny", "nano"])
@pytest.mark.parametrize("grid", GRIDS)
def test_rows_equal_transformers(which: str, grid: PatchGrid, request: pytest.FixtureRequest) -> None:
    reference: TransformersReference = request.getfixturevalue(f"{which}_reference")
    frames = draw(grid)
    assert_same(load(reference.checkpoint).encode(frames), reference_rows(reference, frames))


def test_parts_of_a_video_may_be_encoded_alone(tiny_checkpoint: Path) -> None:
    encoder, video = load(tiny_checkpoint), draw(PatchGrid(5, 4, 6))
    parts = [encoder.encode(part) for part in video.temporal_parts(1)]
    levels = zip(*(part.deepstack for part in parts), strict=True)
    joined = VisionRows(torch.cat([part.rows for part in parts]), tuple(torch.cat(level) for level in levels))
    assert_same(joined, encoder.encode(video))


def test_media_of_many_requests_may_be_encoded_together(tiny_checkpoint: Path) -> None:
    encoder = load(tiny_checkpoint)
    media = [draw(grid, seed) for seed, grid in enumerate([*GRIDS, PatchGrid(2, 8, 8), PatchGrid(1, 6, 6)])]
    for together, alone in zip(encoder.encode_many(media), map(encoder.encode, media), strict=True):
        assert_same(together, alone)


def test_a_video_too_long_for_one_pass_is_the_same(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, video = load(tiny_checkpoint), draw(PatchGrid(5, 4, 6))
    whole = encoder.encode(video)
    monkeypatch.setattr("antiphon.model.vision_encoder._PATCHES_AT_ONCE", 60)
    assert_same(encoder.encode(video), whole)


def test_bfloat16_stays_near_float32(nano: Path) -> None:
    half = VisionEncoder.load(Checkpoint(nano), OmniConfig.from_checkpoint(nano), dtype=torch.bfloat16)
    frames = draw(PatchGrid(1, 8, 8))
    rows, expected = half.encode(frames).rows, load(nano).encode(frames).rows
    assert rows.dtype == torch.bfloat16
    assert (rows.float() - expected).norm() / expected.norm() < 0.05
