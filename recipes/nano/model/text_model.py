"""A forward over the layers of transformers' Thinker or Talker for training: fixed shapes, causal, no cache.

Sequences of a batch are packed to the left; what follows a sequence's end is garbage that nothing before it sees.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn


def run_text_model(
    model: nn.Module,
    rows: Tensor,
    positions: Tensor,
    *,
    deepstack: Sequence[Tensor] = (),
    visual_mask: Tensor | None = None,
    keep_after_layer: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The last hidden rows, normalised, and those after `keep_after_layer` layers, as they are.

    model: `thinker.model.language_model` or `talker.model`; rows (batch, length, width); positions float32 (3, batch,
    length). deepstack: (batch, length, width) each, added after the first layers where visual_mask (batch, length) is true.
    """
    angles = _angles(model, positions)
    turn = angles.cos().to(rows.dtype), angles.sin().to(rows.dtype)
    hidden, kept = rows, None
    for index, layer in enumerate(cast(nn.ModuleList, model.layers)):
        hidden = _only_tensor(layer(hidden, attention_mask=None, position_embeddings=turn))
        if index + 1 == keep_after_layer:
            kept = hidden
        if index < len(deepstack):
            hidden = hidden + deepstack[index] * _column(visual_mask, hidden)
    return cast(Tensor, cast(nn.Module, model.norm)(hidden)), kept


def _only_tensor(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Layers return a tensor, or a tuple that begins with it, from one release of transformers to another."""
    return output[0] if isinstance(output, tuple) else output


def _column(mask: Tensor | None, like: Tensor) -> Tensor:
    if mask is None:
        raise ValueError("deepstack rows need a visual_mask that says where they belong.")
    return mask[..., None].to(like.dtype)


def _angles(model: nn.Module, positions: Tensor) -> Tensor:
    """Interleaved multimodal rotary angles (batch, length, head width) by elementwise products: a matrix product in
    TF32 would bend them."""
    rotary = cast(nn.Module, model.rotary_emb)
    sections = cast(Sequence[int], rotary.mrope_section)
    by_axis = positions[..., None].float() * cast(Tensor, rotary.inv_freq).float()
    mixed = by_axis[0].clone()
    for axis in (1, 2):
        of_axis = slice(axis, sections[axis] * 3, 3)
        mixed[..., of_axis] = by_axis[axis][..., of_axis]
    return torch.cat((mixed, mixed), dim=-1)
