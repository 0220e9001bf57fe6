"""Code2Wav's pre-transformer: causal attention over the last frames, whose keys and values lie in one fixed room."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from antiphon.model.config import Code2WavConfig
from antiphon.model.layers import RMSNorm, SwiGLU


class KeyValueWindow:
    """Keys and values of one stream's last frames, for all layers.

    Frames are appended; when the room ends, the `sliding_window - 1` frames still in sight move to its front.
    """

    def __init__(self, config: Code2WavConfig, push_frames: int, *, dtype: torch.dtype, device: torch.device) -> None:
        head_width = config.width // config.heads
        self._sight = config.sliding_window - 1
        # (layers, keys and values, heads, frames, head width)
        shape = (config.layers, 2, config.kv_heads, self._sight + push_frames, head_width)
        self._room = torch.zeros(shape, dtype=dtype, device=device)
        self._filled = 0
        self.frame_count = 0

    def append(self, count: int) -> slice:
        """Makes room for `count` frames; returns the frames in sight of them, themselves included."""
        if self._filled + count > self._room.shape[3]:
            kept = min(self._filled, self._sight)
            self._room[:, :, :, :kept] = self._room[:, :, :, self._filled - kept : self._filled].clone()
            self._filled = kept
        seen = slice(max(self._filled - self._sight, 0), self._filled + count)
        self._filled += count
        self.frame_count += count
        return seen

    def write(self, layer: int, seen: slice, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the newest frames (heads, count, head width); returns all keys and values in sight."""
        count = keys.shape[1]
        room = self._room[layer]
        room[0, :, seen.stop - count : seen.stop] = keys
        room[1, :, seen.stop - count : seen.stop] = values
        return room[0, :, seen], room[1, :, seen]

    def export(self) -> Tensor:
        """(layers, 2, heads, at most sliding_window - 1, head width) of the frames still in sight."""
        return self._room[:, :, :, max(self._filled - self._sight, 0) : self._filled].clone()

    def restore(self, exported: Tensor, frame_count: int) -> None:
        self._filled = exported.shape[3]
        self._room[:, :, :, : self._filled] = exported
        self.frame_count = frame_count


@dataclass(frozen=True, slots=True)
class _Push:
    """What the layers share while some new frames pass through them."""

    window: KeyValueWindow
    seen: slice
    # cos and sin of the new frames, each (frames, head width).
    rotation: tuple[Tensor, Tensor]
    # True where a new frame (row) may look at a frame in sight (column); None: at all of them.
    mask: Tensor | None

    def rotated(self, heads: Tensor) -> Tensor:
        cos, sin = self.rotation
        left, right = heads.chunk(2, dim=-1)
        return heads * cos + torch.cat((-right, left), dim=-1) * sin


class PreTransformer(nn.Module):
    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config, index) for index in range(config.layers))
        self.norm = RMSNorm(config.width, config.rms_eps)
        self._sliding_window = config.sliding_window
        self._head_width, self._theta = config.width // config.heads, config.rope_theta

    def forward(self, rows: Tensor, window: KeyValueWindow) -> Tensor:
        """rows (frames, width) of the newest frames."""
        rotation = self._rotation(window.frame_count, rows)
        seen = window.append(rows.shape[0])
        push = _Push(window, seen, rotation, self._mask(seen, rows))
        for layer in self.layers:
            rows = layer(rows, push)
        normed: Tensor = self.norm(rows)
        return normed

    def _rotation(self, first: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        exponents = torch.arange(0, self._head_width, 2, dtype=torch.float32, device=rows.device) / self._head_width
        frames = torch.arange(first, first + rows.shape[0], dtype=torch.float32, device=rows.device)
        angles = torch.outer(frames, 1.0 / self._theta**exponents).repeat(1, 2)
        return angles.cos().to(rows.dtype), angles.sin().to(rows.dtype)

    def _mask(self, seen: slice, rows: Tensor) -> Tensor | None:
        if rows.shape[0] == 1:
            return None
        columns = torch.arange(seen.stop - seen.start, device=rows.device)
        age = columns[-rows.shape[0] :, None] - columns
        return (age >= 0) & (age < self._sliding_window)


class _Layer(nn.Module):
    def __init__(self, config: Code2WavConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.rms_eps)
        self.self_attn = _Attention(config, index)
        self.self_attn_layer_scale = _LayerScale(config.width)
        self.post_attention_layernorm = RMSNorm(config.width, config.rms_eps)
        self.mlp = SwiGLU(config.width, config.feed_forward)
        self.mlp_layer_scale = _LayerScale(config.width)

    def forward(self, rows: Tensor, push: _Push) -> Tensor:
        rows = rows + self.self_attn_layer_scale(self.self_attn(self.input_layernorm(rows), push))
        fed: Tensor = self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(rows)))
        return rows + fed


class _Attention(nn.Module):
    def __init__(self, config: Code2WavConfig, index: int) -> None:
        super().__init__()
        self._index, self._head_width = index, config.width // config.heads
        self._grouped = config.kv_heads != config.heads
        self._split = [config.heads, config.kv_heads, config.kv_heads]
        self.qkv_proj = nn.Linear(config.width, sum(self._split) * self._head_width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, rows: Tensor, push: _Push) -> Tensor:
        heads = self.qkv_proj(rows).view(rows.shape[0], -1, self._head_width).transpose(0, 1)
        queries, new_keys, new_values = torch.split(heads, self._split)
        keys, values = push.window.write(self._index, push.seen, push.rotated(new_keys), new_values)
        mixed = functional.scaled_dot_product_attention(
            push.rotated(queries)[None], keys[None], values[None], attn_mask=push.mask, enable_gqa=self._grouped
        )
        projected: Tensor = self.o_proj(mixed[0].transpose(0, 1).flatten(1))
        return projected


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(width))

    def forward(self, rows: Tensor) -> Tensor:
        return self.scale * rows
