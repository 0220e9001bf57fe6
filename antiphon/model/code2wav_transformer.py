"""Code2Wav's pre-transformer: causal attention over the last frames of many streams side by side."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from antiphon.model.config import Code2WavConfig
from antiphon.model.layers import RMSNorm, SwiGLU
from antiphon.model.row_products import row_by_row


@dataclass(frozen=True, slots=True)
class _Push:
    """What the layers share while the same number of new frames of each stream pass through them."""

    # (streams, layers, keys and values, heads, frames, head width): the frames before, the newest last.
    keys_values: Tensor
    # cos and sin of the new frames, each (streams, 1, frames, head width).
    rotation: tuple[Tensor, Tensor]
    # (streams * new frames, 1, 1, frames in sight): True where there is one.
    mask: Tensor

    def rotated(self, heads: Tensor) -> Tensor:
        cos, sin = self.rotation
        left, right = heads.chunk(2, dim=-1)
        return heads * cos + torch.cat((-right, left), dim=-1) * sin

    def in_sight(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Of the frames that each new one sees, (streams * new frames, heads, frames in sight, head width) both: one
        order in which it adds them up, whoever comes with it. The newest are kept for the next push."""
        before = self.keys_values[:, layer]
        seen = torch.cat((before, torch.stack((keys, values), 1)), 3)
        before.copy_(seen[:, :, :, keys.shape[2] :])
        windows = seen.unfold(3, before.shape[3] + 1, 1).permute(1, 0, 3, 2, 5, 4).flatten(1, 2)
        return windows[0], windows[1]


class PreTransformer(nn.Module):
    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config, index) for index in range(config.layers))
        self.norm = RMSNorm(config.width, config.rms_eps)
        self._sliding_window, self._kv_heads = config.sliding_window, config.kv_heads
        self._head_width, self._theta = config.width // config.heads, config.rope_theta

    def forward(self, rows: Tensor, keys_values: Tensor, frame_counts: Tensor) -> Tensor:
        """rows (streams, frames, width) that follow `frame_counts` (streams) others, whose newest `keys_values`
        (streams, layers, 2, heads, sliding_window - 1, head width) holds and then holds the new ones too."""
        frames = frame_counts[:, None] + torch.arange(rows.shape[1], device=rows.device)
        push = _Push(keys_values, self._rotation(frames, rows.dtype), self._mask(frames))
        for layer in self.layers:
            rows = layer(rows, push)
        normed: Tensor = self.norm(rows)
        return normed

    def new_keys_values(self, streams: int) -> Tensor:
        """Of streams without a frame."""
        shape = (streams, len(self.layers), 2, self._kv_heads, self._sliding_window - 1, self._head_width)
        return self.norm.weight.new_zeros(shape)

    def _rotation(self, frames: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """frames (streams, frames): their numbers."""
        exponents = torch.arange(0, self._head_width, 2, dtype=torch.float32, device=frames.device) / self._head_width
        angles = (frames[:, None, :, None].float() * (1.0 / self._theta**exponents)).repeat(1, 1, 1, 2)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def _mask(self, frames: Tensor) -> Tensor:
        """A frame sees itself and those before it within the window, from the first one of its stream on."""
        sight = self._sliding_window - 1
        ages = torch.arange(sight, -1, -1, device=frames.device)
        return (ages <= frames[:, :, None]).flatten(0, 1)[:, None, None]


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
        fed: Tensor = self.mlp_layer_scale(row_by_row(self.mlp, self.post_attention_layernorm(rows)))
        return rows + fed


class _Attention(nn.Module):
    def __init__(self, config: Code2WavConfig, index: int) -> None:
        super().__init__()
        self._index, self._head_width = index, config.width // config.heads
        self._split = [config.heads, config.kv_heads, config.kv_heads]
        self.qkv_proj = nn.Linear(config.width, sum(self._split) * self._head_width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, rows: Tensor, push: _Push) -> Tensor:
        projected = row_by_row(self.qkv_proj, rows)
        heads = projected.view(*rows.shape[:2], -1, self._head_width).transpose(1, 2)
        queries, new_keys, new_values = heads.split_with_sizes(self._split, 1)
        keys, values = push.in_sight(self._index, push.rotated(new_keys), new_values)
        mixed = self._mixed(push.rotated(queries).transpose(1, 2).flatten(0, 1), keys, values, push.mask)
        return row_by_row(self.o_proj, mixed.to(rows.dtype).view_as(rows))

    def _mixed(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """queries (frames, heads, head width), keys and values as in sight -> (frames, heads * head width). On a CPU,
        torch's own attention sums in another order where frames and heads are fewer than threads."""
        grouped = queries.float().view(len(queries), keys.shape[1], -1, 1, self._head_width)
        scores = (grouped * keys[:, :, None]).sum(4) * self._head_width**-0.5
        shares = scores.masked_fill(~mask, -math.inf).softmax(3)
        mixed: Tensor = (shares[..., None] * values[:, :, None]).sum(3)
        return mixed.flatten(1)


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(width))

    def forward(self, rows: Tensor) -> Tensor:
        return self.scale * rows
