"""The vision encoder: patches to rows for the Thinker and to the rows added after its first layers ("deepstack").

Attention stays within a temporal patch, so images and temporal patches of one size go through together, of whatever
request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional

from antiphon.model.config import OmniConfig, VisionEncoderConfig
from antiphon.model.vision_patches import PatchedFrames
from antiphon.model.weights import Checkpoint

_LAYER_NORM_EPS = 1e-6
# Patches computed at once (but at least one temporal patch): bounds the memory.
_PATCHES_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True)
class VisionRows:
    rows: Tensor  # (tokens, output width)
    deepstack: tuple[Tensor, ...]  # each (tokens, output width)


class VisionEncoder(nn.Module):
    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = _PatchEmbedding(config)
        self.pos_embed = _Positions(config)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.merger = _Merger(config, norm_after_merge=False)
        self.merger_list = nn.ModuleList(_Merger(config, norm_after_merge=True) for _ in config.deepstack_blocks)

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, config: OmniConfig, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> "VisionEncoder":
        """Reads `thinker.visual.*` only. Raises CheckpointError when a tensor is missing or does not fit."""
        with torch.device("meta"):
            encoder = cls(config.thinker.vision)
        checkpoint.fill(encoder, "thinker.visual.", dtype=dtype, device=device)
        return encoder.eval()

    def encode(self, frames: PatchedFrames) -> VisionRows:
        """One image or video; rows follow the merged grid, row by row, frames in time order."""
        per_patch = frames.grid.height * frames.grid.width
        parts = frames.temporal_parts(max(_PATCHES_AT_ONCE // per_patch, 1))
        encoded = [self._encode([part])[0] for part in parts]
        deepstack = zip(*(part.deepstack for part in encoded), strict=True)
        return VisionRows(torch.cat([part.rows for part in encoded]), tuple(torch.cat(level) for level in deepstack))

    def encode_many(self, frames: Sequence[PatchedFrames]) -> list[VisionRows]:
        """Of one request or of many; grids of one height and width go together. The caller bounds their sum."""
        rows: dict[int, VisionRows] = {}
        sizes = {index: part.grid[1:] for index, part in enumerate(frames)}
        for _, same in groupby(sorted(sizes, key=sizes.__getitem__), key=sizes.__getitem__):
            indices = list(same)
            rows.update(zip(indices, self._encode([frames[index] for index in indices]), strict=True))
        return [rows[index] for index in range(len(frames))]

    @torch.inference_mode()
    def _encode(self, frames: list[PatchedFrames]) -> list[VisionRows]:
        """Frames whose grids have one height and width."""
        _, height, width = frames[0].grid
        weight = self.pos_embed.weight
        patches = torch.cat([part.rows for part in frames]).to(weight.device, weight.dtype)
        rows, deepstack = self(patches.view(-1, height * width, patches.shape[1]), height, width)
        per_token = self.config.merge_size**2
        counts = [part.grid.patches // per_token for part in frames]
        levels = [torch.split(level, counts) for level in deepstack]
        return [
            VisionRows(part, tuple(level[index] for level in levels))
            for index, part in enumerate(torch.split(rows, counts))
        ]

    def forward(self, patches: Tensor, height: int, width: int) -> tuple[Tensor, list[Tensor]]:
        """patches (temporal patches, height * width, values a patch) in merge blocks -> rows and deepstack rows."""
        hidden: Tensor = self.patch_embed(patches)
        places = _places(height, width, self.config.merge_size).to(hidden.device)
        hidden = hidden + self.pos_embed(places, height, width).to(hidden.dtype)
        rotation = _rotation(places, self.config.width // self.config.heads, self.config.rope_theta)
        deepstack: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, rotation)
            if index in self.config.deepstack_blocks:
                deepstack.append(self.merger_list[len(deepstack)](hidden))
        return self.merger(hidden), deepstack


class _PatchEmbedding(nn.Module):
    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        kernel = (config.temporal_patch_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(config.in_channels, config.width, kernel)

    def forward(self, patches: Tensor) -> Tensor:
        # The kernel covers the whole patch, so the convolution is one matrix product.
        return functional.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class _Positions(nn.Module):
    """A square table of learned positions, resampled to a grid: bilinear, corners on corners."""

    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self._side = round(config.position_count**0.5)
        self.weight = nn.Parameter(torch.empty(config.position_count, config.width))

    def forward(self, places: Tensor, height: int, width: int) -> Tensor:
        """places (patches, 2) -> (patches, width), float32."""
        rows, row_shares = self._taps(places[:, 0], height)
        columns, column_shares = self._taps(places[:, 1], width)
        entries = (rows[:, :, None] * self._side + columns[:, None, :]).flatten(1)
        shares = (row_shares[:, :, None] * column_shares[:, None, :]).flatten(1)
        return (functional.embedding(entries, self.weight) * shares[:, :, None]).sum(1)

    def _taps(self, index: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The two table entries around each index of an axis of `size`, and their shares."""
        place = index.float() * (self._side - 1) / max(size - 1, 1)
        below = place.floor()
        taps = torch.stack([below, below + 1], dim=1)
        shares = (1 - (place[:, None] - taps).abs()).clamp(min=0)
        return taps.long().clamp(0, self._side - 1), shares


class _Block(nn.Module):
    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=_LAYER_NORM_EPS)
        self.norm2 = nn.LayerNorm(config.width, eps=_LAYER_NORM_EPS)
        self.attn = _Attention(config)
        self.mlp = _FeedForward(config)

    def forward(self, rows: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        rows = rows + self.attn(self.norm1(rows), rotation)
        fed: Tensor = self.mlp(self.norm2(rows))
        return rows + fed


class _Attention(nn.Module):
    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self._heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, rows: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        temporal, patches, width = rows.shape
        split = self.qkv(rows).view(temporal, patches, 3, self._heads, width // self._heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)  # (temporal, heads, patches, head width)
        mixed = functional.scaled_dot_product_attention(_rotated(queries, rotation), _rotated(keys, rotation), values)
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected


class _FeedForward(nn.Module):
    def __init__(self, config: VisionEncoderConfig) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(config.width, config.feed_forward)
        self.linear_fc2 = nn.Linear(config.feed_forward, config.width)

    def forward(self, rows: Tensor) -> Tensor:
        fed: Tensor = self.linear_fc2(functional.gelu(self.linear_fc1(rows), approximate="tanh"))
        return fed


class _Merger(nn.Module):
    """Four neighbouring patches to one row of the Thinker's width."""

    def __init__(self, config: VisionEncoderConfig, *, norm_after_merge: bool) -> None:
        super().__init__()
        self._merged = config.width * config.merge_size**2
        self._norm_after_merge = norm_after_merge
        self.ln_q = nn.LayerNorm(self._merged if norm_after_merge else config.width, eps=_LAYER_NORM_EPS)
        self.mlp = nn.ModuleList(
            [nn.Linear(self._merged, self._merged), nn.GELU(), nn.Linear(self._merged, config.output_width)]
        )

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows.reshape(-1, self._merged) if self._norm_after_merge else rows
        rows = self.ln_q(rows).reshape(-1, self._merged)
        for layer in self.mlp:
            rows = layer(rows)
        return rows


def _places(height: int, width: int, merge: int) -> Tensor:
    """(patches, 2): row and column of each patch, in merge blocks."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    blocks = (height // merge, merge, width // merge, merge)
    return torch.stack([axis.reshape(blocks).transpose(1, 2).flatten() for axis in (rows, columns)], dim=1)


def _rotation(places: Tensor, head_width: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin, float32 (patches, head width): half the frequencies follow the row, half the column."""
    axis_width = head_width // 2
    exponents = torch.arange(0, axis_width, 2, dtype=torch.float32, device=places.device) / axis_width
    angles = (places[:, :, None].float() * (1.0 / theta**exponents)).flatten(1).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotated(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotation
    wide = heads.float()
    left, right = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat((-right, left), dim=-1) * sin).to(heads.dtype)
