"""Pictures and film frames to the patches that the vision encoder reads, as transformers' fast processors make them.

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
# Qwen3OmniMoeProcessor's own bounds for film frames, which hold where a checkpoint states none.
_FILM_PIXELS = {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32}


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
    """A picture, or any run of temporal patches of a film."""

    rows: Tensor  # float32 (grid.patches, channels * temporal patch * patch * patch)
    grid: PatchGrid

    def temporal_parts(self, temporal_patches: int) -> list["PatchedFrames"]:
        """Runs of so many temporal patches, each of which may be encoded on its own."""
        per_patch = self.grid.height * self.grid.width
        parts = torch.split(self.rows, temporal_patches * per_patch)
        return [PatchedFrames(rows, self.grid._replace(time=len(rows) // per_patch)) for rows in parts]


@dataclass(frozen=True, slots=True)
class PixelBounds:
    """Pixels that a picture, or one frame of a film, has after resizing."""

    minimum: int
    maximum: int

    def resized(self, height: int, width: int, multiple: int) -> tuple[int, int]:
        """The size nearest to the given one with sides that are multiples, within the bounds."""
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            raise InvalidInput(
                f"expected a picture whose longer side is at most {MAX_ASPECT_RATIO} times the shorter; "
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
    """How a checkpoint wants its pictures and films."""

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    picture_bounds: PixelBounds
    film_bounds: PixelBounds
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def from_checkpoint(cls, directory: Path, config: VisionEncoderConfig) -> "VisionPreprocessor":
        """Reads processor_config.json, or preprocessor_config.json as the released checkpoints have it."""
        pictures, films = _processor_sections(directory)
        try:
            return cls(
                patch_size=config.patch_size,
                temporal_patch_size=config.temporal_patch_size,
                merge_size=config.merge_size,
                picture_bounds=_bounds(pictures),
                film_bounds=_bounds(films),
                mean=tuple(float(value) for value in pictures["image_mean"]),
                deviation=tuple(float(value) for value in pictures["image_std"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{directory}: expected the image processor's size, image_mean and image_std; {error!r}"
            ) from error

    def picture_grid(self, height: int, width: int) -> PatchGrid:
        return self._grid(1, self.picture_bounds, height, width)

    def film_grid(self, frames: int, height: int, width: int) -> PatchGrid:
        return self._grid(-(-frames // self.temporal_patch_size), self.film_bounds, height, width)

    def token_count(self, grid: PatchGrid) -> int:
        return grid.patches // self.merge_size**2

    def picture(self, pixels: Tensor) -> PatchedFrames:
        """uint8 (3, height, width)."""
        return self._patched(pixels[None], self.picture_grid(*pixels.shape[1:]))

    def film(self, frames: Tensor) -> PatchedFrames:
        """uint8 (frames, 3, height, width)."""
        return self._patched(frames, self.film_grid(len(frames), *frames.shape[2:]))

    def _grid(self, time: int, bounds: PixelBounds, height: int, width: int) -> PatchGrid:
        height, width = bounds.resized(height, width, self.patch_size * self.merge_size)
        return PatchGrid(time, height // self.patch_size, width // self.patch_size)

    def _patched(self, frames: Tensor, grid: PatchGrid) -> PatchedFrames:
        resized = _resize(frames, (grid.height * self.patch_size, grid.width * self.patch_size))
        missing = -len(resized) % self.temporal_patch_size
        resized = torch.cat([resized, resized[-1:].expand(missing, -1, -1, -1)])
        return PatchedFrames(self._rows(self._normalised(resized), grid), grid)

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


def _resize(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 in, uint8 out: bit for bit what torchvision's bicubic resize with antialiasing gives."""
    if tuple(frames.shape[2:]) == size:
        return frames
    return functional.interpolate(frames, size, mode="bicubic", antialias=True, align_corners=False)


def _at_least(multiple: int, rounding: Callable[[float], int], length: float) -> int:
    return max(multiple, rounding(length / multiple) * multiple)


def _processor_sections(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(of pictures, of films)"""
    whole = _read(directory / "processor_config.json")
    if "image_processor" in whole:
        pictures = whole["image_processor"]
        return pictures, whole.get("video_processor") or {"size": _FILM_PIXELS}
    pictures = _read(directory / "preprocessor_config.json")
    if not pictures:
        raise CheckpointError(
            f"{directory}: expected processor_config.json or preprocessor_config.json: they tell the sizes of pictures."
        )
    return pictures, _read(directory / "video_preprocessor_config.json") or {"size": _FILM_PIXELS}


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
