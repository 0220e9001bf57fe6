"""A batched forward over the parameters of transformers' audio encoder, for training: shapes that no length changes.

transformers packs sounds into one row and cuts it by lengths that it reads on the host; here every sound has a row of
its own, as long as the longest may be, and masks stand for the cuts.
"""

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK_FRAMES = 100
CHUNK_TOKENS = 13


def audio_token_counts(frame_counts: Tensor) -> Tensor:
    """Rows that a sound of so many mel frames becomes: thirteen a second, and what three halvings leave of the rest."""
    rest = frame_counts % CHUNK_FRAMES
    for _ in range(3):
        rest = (rest + 1) // 2
    return frame_counts // CHUNK_FRAMES * CHUNK_TOKENS + rest


def run_audio_tower(tower: nn.Module, mel: Tensor, frame_counts: Tensor) -> Tensor:
    """(batch, 13 * chunks, output width), where the first `audio_token_counts(frame_counts)` rows of each sound count.

    tower: `thinker.model.audio_tower`; mel: (batch, bins, 100 * chunks), zero after each sound's frames; frame_counts:
    int64 (batch,), 0 where there is no sound. Each is encoded as transformers encodes it alone in a request.
    """
    batch, _, frames = mel.shape
    if frames % CHUNK_FRAMES:
        raise ValueError(f"expected whole chunks of {CHUNK_FRAMES} mel frames; {frames} came. Pad them with zeros.")
    hidden = _convolved(tower, mel, frame_counts).view(batch, frames // CHUNK_FRAMES * CHUNK_TOKENS, -1)
    mask = _attention_mask(tower, hidden, audio_token_counts(frame_counts))
    for layer in cast(Iterable[nn.Module], tower.layers):
        hidden = _layer(layer, hidden, mask)
    return _call(tower, "proj2", F.gelu(_call(tower, "proj1", _call(tower, "ln_post", hidden))))


def _convolved(tower: nn.Module, mel: Tensor, frame_counts: Tensor) -> Tensor:
    """(batch, bins, 100 * chunks) -> (batch * chunks, 13, width), positions added; every chunk on its own."""
    batch, bins, frames = mel.shape
    chunks = frames // CHUNK_FRAMES
    hidden = mel.view(batch, bins, chunks, CHUNK_FRAMES).transpose(1, 2).reshape(-1, 1, bins, CHUNK_FRAMES)
    lengths = _convolved_lengths(frame_counts).repeat_interleave(chunks, output_size=batch * chunks)
    for name in ("conv2d1", "conv2d2", "conv2d3"):
        lengths = (lengths + 1) // 2
        hidden = F.gelu(_call(tower, name, hidden))
        hidden = hidden * (_places(hidden.shape[-1], hidden) < lengths[:, None, None, None])
    # (chunk, channels, bins, 13) -> (chunk, 13, channels * bins)
    rows = _call(tower, "conv_out", hidden.permute(0, 3, 1, 2).flatten(2))
    positions = cast(Tensor, cast(nn.Module, tower.positional_embedding).positional_embedding)
    return rows + positions[:CHUNK_TOKENS].to(rows)


def _convolved_lengths(frame_counts: Tensor) -> Tensor:
    """Frames that exist for the convolutions: transformers pads a last chunk to its neighbours' hundred, but a sound
    that is shorter than one chunk has no neighbour and ends where it ends."""
    return frame_counts.clamp(max=CHUNK_FRAMES)


def _attention_mask(tower: nn.Module, hidden: Tensor, token_counts: Tensor) -> Tensor:
    """bool (batch, 1, queries or 1, tokens): a sound's own tokens, within the same window of eight seconds."""
    places = _places(hidden.shape[1], hidden)
    # Without any token attention would be undefined; with one that nobody reads it is not.
    mask = (places < token_counts.clamp(min=1)[:, None])[:, None, None]
    window = cast(int, tower.n_window_infer) // CHUNK_FRAMES * CHUNK_TOKENS
    if hidden.shape[1] <= window:
        return mask
    same_window = places[:, None] // window == places[None, :] // window
    # A query beyond the sound's end may find nothing to look at in its window; it looks at itself.
    return mask & same_window | torch.eye(hidden.shape[1], dtype=torch.bool, device=hidden.device)


def _layer(layer: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    attention = cast(nn.Module, layer.self_attn)
    normed = _call(layer, "self_attn_layer_norm", hidden)
    query, key, value = (_heads(attention, _call(attention, f"{kind}_proj", normed)) for kind in "qkv")
    seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    hidden = hidden + _call(attention, "out_proj", seen.transpose(1, 2).flatten(2))
    normed = _call(layer, "final_layer_norm", hidden)
    return hidden + _call(layer, "fc2", F.gelu(_call(layer, "fc1", normed)))


def _heads(attention: nn.Module, rows: Tensor) -> Tensor:
    """(batch, tokens, width) -> (batch, heads, tokens, head width)"""
    batch, tokens, _ = rows.shape
    return rows.view(batch, tokens, cast(int, attention.num_heads), -1).transpose(1, 2)


def _places(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device)


def _call(module: nn.Module, name: str, rows: Tensor) -> Tensor:
    """nn.Module's attributes are untyped; this says once that they are modules over tensors."""
    return cast(Tensor, cast(nn.Module, getattr(module, name))(rows))
