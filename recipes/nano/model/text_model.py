"""A forward over the layers of transformers' Thinker or Talker for training: fixed shapes, causal, no cache.

Sequences of a batch are packed to the left; what follows a sequence's end is garbage that nothing before it sees.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

# Cosines and sines of rotary angles, (batch or 1, length, head width) each.
Rotation = tuple[Tensor, Tensor]


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

    model: the Thinker's text model or `talker.model`
    rows: (batch, length, width), at positions float32 (3, batch, length)
    deepstack: (batch, length, width) each, added after the first layers where visual_mask (batch, length) is true
    """
    if deepstack and visual_mask is None:
        raise ValueError("deepstack rows need a visual_mask that says where they belong.")
    rotation = rotation_by(_angles(model, positions), rows.dtype)
    hidden, kept = rows, None
    for index, layer in enumerate(model.get_submodule("layers").children()):
        hidden = run_layer(layer, hidden, rotation)
        if index + 1 == keep_after_layer:
            kept = hidden
        if visual_mask is not None and index < len(deepstack):
            hidden = hidden + deepstack[index] * visual_mask[..., None].to(hidden.dtype)
    return cast(Tensor, model.get_submodule("norm")(hidden)), kept


def run_layer(layer: nn.Module, rows: Tensor, rotation: Rotation) -> Tensor:
    """Without a mask a layer is causal. It returns a tensor, or a tuple that begins with it, from one release of
    transformers to another."""
    output: Tensor | tuple[Tensor, ...] = layer(rows, attention_mask=None, position_embeddings=rotation)
    return output[0] if isinstance(output, tuple) else output


def rotation_by(angles: Tensor, dtype: torch.dtype) -> Rotation:
    """angles (batch or 1, length, half of the head width), by which both halves of a head turn"""
    whole = torch.cat((angles, angles), dim=-1)
    return whole.cos().to(dtype), whole.sin().to(dtype)


def _angles(model: nn.Module, positions: Tensor) -> Tensor:
    """Interleaved multimodal rotary angles (batch, length, half of the head width), by elementwise products: a matrix
    product in TF32 would bend them."""
    rotary = model.get_submodule("rotary_emb")
    by_axis = positions[..., None].float() * rotary.get_buffer("inv_freq").float()
    sections = cast(Sequence[int], rotary.mrope_section)
    mixed = by_axis[0].clone()
    for axis in (1, 2):
        of_axis = slice(axis, sections[axis] * 3, 3)
        mixed[..., of_axis] = by_axis[axis][..., of_axis]
    return mixed
