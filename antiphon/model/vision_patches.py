"""Images and video frames to the patches that the vision encoder reads, as transformers' fast processors make them.

A row of patches is 3 channels x 2 frames x 16 x 16 pixels; rows come in blocks of 2 x 2 patches, one block a token.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from antiphon.errors import CheckpointError, InvalidInput
from antiphon.model.config import VisionEncoderConfig

MAX_ASPECT_RATIO = 200
# Qwen3OmniMoeProcessor's own bounds for video frames, which hold where a checkpoint states none.
_VIDEO_PIXELS = {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32}


class PatchGrid(NamedTuple):
    """Patches in time, height and width, before the merge."""

    time: int
    height: int
    width: int

    @property
    def patches(self) -> int:
        return self.time * self.height * self.width


@dataclass(frozen=True, slots=True)
class PatchedFrames:
    """An image, or any run of temporal patches of a video."""

    rows: Tensor  # float32 (grid.patches, channels * temporal patch * patch * patch)
    grid: PatchGrid

    def temporal_parts(self, temporal_patches: int) -> list["PatchedFrames"]:
        """Runs of so many temporal patches, each of which may be encoded on its own."""
        per_patch = self.grid.height * self.grid.width
        parts = torch.split(self.rows, temporal_patches * per_patch)
        return [PatchedFrames(rows, self.grid._replace(time=len(rows) // per_patch)) for rows in parts]


@dataclass(frozen=True, slots=True)
class PixelBounds:
    """Pixels that an image, or one frame of a video, has after resizing."""

    minimum: int
    maximum: int

    def resized(self, height: int, width: int, multiple: int) -> tuple[int, int]:
        """The size nearest to the given one with sides that are multiples, within the bounds."""
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            raise InvalidInput(
                f"Expected an image whose longer side is at most {MAX_ASPECT_RATIO} times the shorter; "
                f"came {width} x {height} pixels. Crop it."
            )
        rounded = round(height / multiple) * multiple, round(width / multiple) * multiple
        if rounded[0] * rounded[1] > self.maximum:
            shrink = math.sqrt(height * width / self.maximum)
            return _at_least(multiple, math.floor, height / shrink), _at_least(multiple, math.floor, width / shrink)
        if rounded[0] * rounded[1] < self.minimum:
            grow = math.sqrt(self.minimum / (height * width))
            return _at_least(multiple, math.ceil, height * grow), _at_least(multiple, math.ceil, width * grow)
        return rounded


@dataclass(frozen=True, slots=True)
class VisionPreprocessor:
    """How a checkpoint wants its images and videos."""

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    image_bounds: PixelBounds
    video_bounds: PixelBounds
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def from_checkpoint(cls, directory: Path, config: VisionEncoderConfig) -> "VisionPreprocessor":
        """Reads processor_config.json, or preprocessor_config.json as the released checkpoints have it."""
        images, videos = _processor_sections(directory)
        try:
            return cls(
                patch_size=config.patch_size,
                temporal_patch_size=config.temporal_patch_size,
                merge_size=config.merge_size,
                image_bounds=_bounds(images),
                video_bounds=_bounds(videos),
                mean=tuple(float(value) for value in images["image_mean"]),
                deviation=tuple(float(value) for value in images["image_std"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{directory}: expected the image processor's size, image_mean and image_std; {error!r}"
            ) from error

    def image_grid(self, height: int, width: int) -> PatchGrid:
        return self._grid(1, self.image_bounds, height, width)

    def video_grid(self, frames: int, height: int, width: int) -> PatchGrid:
        return self._grid(-(-frames // self.temporal_patch_size), self.video_bounds, height, width)

    def token_count(self, grid: PatchGrid) -> int:
        return grid.patches // self.merge_size**2

    def image(self, pixels: Tensor) -> PatchedFrames:
        """uint8 (3, height, width)."""
        return self.patched(self.resized_image(pixels))

    def video(self, frames: Tensor) -> PatchedFrames:
        """uint8 (frames, 3, height, width)."""
        return self.patched(self.resized_video(frames))

    def resized_image(self, pixels: Tensor) -> Tensor:
        """uint8 (3, height, width) -> uint8 (1, 3, height, width) as the model sees it."""
        return self._resized(pixels[None], self.image_grid(*pixels.shape[1:]))

    def resized_video(self, frames: Tensor) -> Tensor:
        """uint8 (frames, 3, height, width), of any part of a video, as the model sees them."""
        return self._resized(frames, self.video_grid(len(frames), *frames.shape[2:]))

    def patched(self, resized: Tensor) -> PatchedFrames:
        """Resized frames; the last is repeated to fill a temporal patch."""
        missing = -len(resized) % self.temporal_patch_size
        frames = torch.cat([resized, resized[-1:].expand(missing, -1, -1, -1)])
        time, height, width = len(frames) // self.temporal_patch_size, *frames.shape[2:]
        grid = PatchGrid(time, height // self.patch_size, width // self.patch_size)
        return PatchedFrames(self._rows(self._normalised(frames), grid), grid)

    def _grid(self, time: int, bounds: PixelBounds, height: int, width: int) -> PatchGrid:
        height, width = bounds.resized(height, width, self.patch_size * self.merge_size)
        return PatchGrid(time, height // self.patch_size, width // self.patch_size)

    def _resized(self, frames: Tensor, grid: PatchGrid) -> Tensor:
        size = (grid.height * self.patch_size, grid.width * self.patch_size)
        if tuple(frames.shape[2:]) == size:
            return frames
        # uint8 in, uint8 out: bit for bit what torchvision's bicubic resize with antialiasing gives.
        return functional.interpolate(frames, size, mode="bicubic", antialias=True, align_corners=False)

    def _normalised(self, frames: Tensor) -> Tensor:
        # Rescaling by 1/255 is folded into mean and deviation, as the fast processors do.
        mean, deviation = (torch.tensor(values).view(1, -1, 1, 1) * 255.0 for values in (self.mean, self.deviation))
        return frames.float().sub_(mean).div_(deviation)

    def _rows(self, frames: Tensor, grid: PatchGrid) -> Tensor:
        patch, merge, temporal = self.patch_size, self.merge_size, self.temporal_patch_size
        channels = frames.shape[1]
        split = frames.view(
            grid.time, temporal, channels, grid.height // merge, merge, patch, grid.width // merge, merge, patch
        )
        # time, block row, block column, row in block, column in block, channel, frame, y, x
        return split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(grid.patches, -1)


def _at_least(multiple: int, rounding: Callable[[float], int], length: float) -> int:
    return max(multiple, rounding(length / multiple) * multiple)


def _processor_sections(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(of images, of videos)"""
    whole = _read(directory / "processor_config.json")
    if "image_processor" in whole:
        images = whole["image_processor"]
        return images, whole.get("video_processor") or {"size": _VIDEO_PIXELS}
    images = _read(directory / "preprocessor_config.json")
    if not images:
        raise CheckpointError(
            f"{directory}: expected processor_config.json or preprocessor_config.json: they tell the sizes of images."
        )
    return images, _read(directory / "video_preprocessor_config.json") or {"size": _VIDEO_PIXELS}


def _read(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: expected a JSON object; {error}") from error
    if not isinstance(read, dict):
        raise CheckpointError(f"{file}: expected a JSON object; found {type(read).__name__}.")
    return read


def _bounds(section: dict[str, Any]) -> PixelBounds:
    size = section.get("size") or {}
    minimum = section.get("min_pixels") or size["shortest_edge"]
    maximum = section.get("max_pixels") or size["longest_edge"]
    return PixelBounds(int(minimum), int(maximum))
