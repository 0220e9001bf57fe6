"""Code2Wav as it is trained: from quantised frames to sound, through the layers of transformers, without a cache."""

from typing import cast

import torch
from torch import Tensor, nn


def speak(code2wav: nn.Module, frames: Tensor) -> Tensor:
    """(batch, frames, width), means of the embeddings of each frame's codes -> (batch, samples), not clamped.

    The same as transformers computes from codes, but of fixed shapes, so that a CUDA graph can hold it; what is cut off
    the end of the last frame is cut here, too.
    """
    hidden = _attended(cast(nn.Module, code2wav.pre_transformer), frames).transpose(1, 2)
    for blocks in cast(nn.ModuleList, code2wav.upsample):
        for block in cast(nn.ModuleList, blocks):
            hidden = block(hidden)
    for block in cast(nn.ModuleList, code2wav.decoder):
        hidden = block(hidden)
    return hidden[:, 0]


def _attended(transformer: nn.Module, frames: Tensor) -> Tensor:
    positions = torch.arange(frames.shape[1], device=frames.device)
    turn = _rotation(transformer, positions)
    mask = _window(positions, int(cast(int, transformer.window_size)))
    hidden = frames
    for layer in cast(nn.ModuleList, transformer.layers):
        output = layer(hidden, attention_mask=mask, position_embeddings=turn)
        hidden = output[0] if isinstance(output, tuple) else output  # a tuple in older releases of transformers
    return cast(Tensor, cast(nn.Module, transformer.norm)(hidden))


def _rotation(transformer: nn.Module, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines (1, frames, head width) by elementwise products: TF32 would bend the angles of a matrix's."""
    frequencies = cast(Tensor, cast(nn.Module, transformer.rotary_emb).inv_freq).float()
    angles = (positions[:, None].float() * frequencies).repeat(1, 2)[None]
    return angles.cos(), angles.sin()


def _window(positions: Tensor, frames_in_sight: int) -> Tensor:
    """(1, 1, frames, frames): true where a frame sees another."""
    distance = positions[:, None] - positions
    return ((distance >= 0) & (distance < frames_in_sight))[None, None]
