"""A batched forward over the parameters of transformers' vision encoder, for training on pictures of one size.

Attention stays within a temporal patch, so a film is a batch of its patches; a picture is one, its frame repeated.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH_SIZE, TEMPORAL_PATCH_SIZE, MERGE_SIZE = 16, 2, 2


@dataclass(frozen=True)
class PatchPositions:
    """What depends on the number of patches alone; in the order of patches."""

    # Where each patch falls between four learned positions: int64 (4, patches) and float32 (4, patches, 1).
    corners: Tensor
    shares: Tensor
    # Rotary angles, float32 (patches, head width).
    cosines: Tensor
    sines: Tensor

    @classmethod
    def of_grid(cls, tower: nn.Module, height: int, width: int) -> "PatchPositions":
        """height, width: in patches, even. On the device of `tower`; make it once, not in a step."""
        patches = torch.arange(height * width).view(height // MERGE_SIZE, MERGE_SIZE, width // MERGE_SIZE, MERGE_SIZE)
        order = patches.permute(0, 2, 1, 3).flatten()
        corners, shares = _between_learned(tower, height, width, order)
        angles = _angles(tower, order // width, order % width)
        device = cast(Tensor, cast(nn.Module, tower.pos_embed).weight).device
        return cls(*(tensor.to(device) for tensor in (corners, shares, angles.cos(), angles.sin())))


def patches_of_frames(frames: Tensor) -> Tensor:
    """float (batch, frames, 3, height, width) in -1…1, an even number of frames, sides multiples of 32 -> (batch *
    frames / 2, patches, 1536), the patches of a merged square one after another."""
    batch, count, channels, height, width = frames.shape
    rows, columns = height // PATCH_SIZE, width // PATCH_SIZE
    split = frames.view(
        batch * count // TEMPORAL_PATCH_SIZE,
        TEMPORAL_PATCH_SIZE,
        channels,
        rows // MERGE_SIZE,
        MERGE_SIZE,
        PATCH_SIZE,
        columns // MERGE_SIZE,
        MERGE_SIZE,
        PATCH_SIZE,
    )
    # patch, block row, block column, row in block, column in block, channel, frame, y, x
    return split.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(len(split), rows * columns, -1)


def run_vision_tower(tower: nn.Module, patches: Tensor, positions: PatchPositions) -> tuple[Tensor, list[Tensor]]:
    """(merged rows, rows of each deepstack level), all (batch, patches / 4, output width).

    tower: `thinker.model.visual`; patches: (batch, patches, 1536), one temporal patch a row.
    """
    hidden = _embedded(tower, patches, positions)
    levels = cast(Sequence[int], tower.deepstack_visual_indexes)
    mergers = cast(nn.ModuleList, tower.merger_list)
    deepstack = []
    for index, block in enumerate(cast(Iterable[nn.Module], tower.blocks)):
        hidden = _block(block, hidden, positions)
        if index in levels:
            deepstack.append(_merged(mergers[list(levels).index(index)], hidden))
    return _merged(cast(nn.Module, tower.merger), hidden), deepstack


def _embedded(tower: nn.Module, patches: Tensor, positions: PatchPositions) -> Tensor:
    """A convolution whose steps are as long as its kernel is one matrix product."""
    convolution = cast(nn.Conv3d, cast(nn.Module, tower.patch_embed).proj)
    learned = cast(nn.Embedding, tower.pos_embed)(positions.corners) * positions.shares
    return F.linear(patches, convolution.weight.flatten(1), convolution.bias) + cast(Tensor, learned.sum(dim=0))


def _block(block: nn.Module, hidden: Tensor, positions: PatchPositions) -> Tensor:
    attention = cast(nn.Module, block.attn)
    batch, patches, _ = hidden.shape
    fused = cast(Tensor, cast(nn.Module, attention.qkv)(cast(nn.Module, block.norm1)(hidden)))
    # (batch, patches, 3 * width) -> three of (batch, heads, patches, head width)
    split = fused.view(batch, patches, 3, cast(int, attention.num_heads), -1).permute(2, 0, 3, 1, 4)
    query, key, value = split.unbind(0)
    query, key = (_turned(heads, positions).to(value.dtype) for heads in (query, key))
    seen = F.scaled_dot_product_attention(query, key, value)
    hidden = hidden + cast(Tensor, cast(nn.Module, attention.proj)(seen.transpose(1, 2).flatten(2)))
    return hidden + cast(Tensor, cast(nn.Module, block.mlp)(cast(nn.Module, block.norm2)(hidden)))


def _turned(heads: Tensor, positions: PatchPositions) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    return heads * positions.cosines + torch.cat((-second, first), dim=-1) * positions.sines


def _merged(merger: nn.Module, hidden: Tensor) -> Tensor:
    """transformers' mergers take patches of all pictures in one row."""
    batch, patches, _ = hidden.shape
    return cast(Tensor, merger(hidden.flatten(0, 1))).view(batch, patches // MERGE_SIZE**2, -1)


def _between_learned(tower: nn.Module, height: int, width: int, order: Tensor) -> tuple[Tensor, Tensor]:
    """Bilinear, corners aligned: the learned square of positions is stretched over the grid."""
    side = cast(int, tower.num_grid_per_side)
    above, below, down = _neighbours(side, height)
    left, right, across = _neighbours(side, width)
    corners, shares = [], []
    for row, of_row in ((above, 1 - down), (below, down)):
        for column, of_column in ((left, 1 - across), (right, across)):
            corners.append((row[:, None] * side + column).flatten()[order])
            shares.append((of_row[:, None] * of_column).flatten()[order])
    return torch.stack(corners), torch.stack(shares)[..., None]


def _neighbours(side: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of `count` places on a line of `side` learned ones: the one before, the one after, the share of the one after."""
    places = torch.linspace(0, side - 1, count)
    before = places.long()
    return before, (before + 1).clamp(max=side - 1), places - before


def _angles(tower: nn.Module, rows: Tensor, columns: Tensor) -> Tensor:
    """Half of a head's frequencies turn with the row, half with the column."""
    rotary = cast(nn.Module, tower.rotary_pos_emb)
    frequencies = cast(Tensor, rotary.inv_freq).float().cpu()
    half = torch.cat((rows[:, None] * frequencies, columns[:, None] * frequencies), dim=-1)
    return torch.cat((half, half), dim=-1)
