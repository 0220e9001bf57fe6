"""The code predictor, taught by its teacher: all fifteen residual codes of a frame at once."""

from typing import cast

import torch
from torch import Tensor

from recipes.nano.model.text_model import rotation_by, run_layer

from .parts import TalkerParts


def residual_logits(parts: TalkerParts, hidden: Tensor, read: Tensor) -> Tensor:
    """Logits (n, 15, codes) of levels 1 to 15.

    hidden (n, width): the Talker's rows that the frames' first codes come from; read int64 (n, 15): the codes of levels
    0 to 14 that stand before them.
    """
    codes = [parts.embedded(read[:, level], level) for level in range(read.shape[1])]
    rows = _read(parts, torch.stack((hidden, *codes), dim=1))[:, 1:]
    heads = torch.stack([head.weight for head in parts.residual_heads])
    return torch.einsum("nlw,lcw->nlc", rows, heads.to(rows.dtype))


def _read(parts: TalkerParts, rows: Tensor) -> Tensor:
    """(n, 16, width) -> the same, after the predictor's layers"""
    frequencies = parts.predictor.get_submodule("rotary_emb").get_buffer("inv_freq")
    angles = torch.arange(rows.shape[1], device=rows.device).float()[None, :, None] * frequencies
    rotation = rotation_by(angles, rows.dtype)
    for layer in parts.predictor.get_submodule("layers").children():
        rows = run_layer(layer, rows, rotation)
    return cast(Tensor, parts.predictor.get_submodule("norm")(rows))
