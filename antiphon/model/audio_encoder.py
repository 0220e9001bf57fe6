"""The audio encoder: log-mel frames to rows for the Thinker, one 8 s window at a time.

Attention reaches no further than a window and convolutions no further than a second, so every window can be encoded on
its own, beside windows of the same length of whatever request. One thing ties the sounds of a request together: their
last, incomplete seconds are padded to the longest of them, and the padding changes the rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from antiphon.model.audio_features import FRAMES_PER_SECOND, token_count
from antiphon.model.config import AudioEncoderConfig, OmniConfig
from antiphon.model.weights import Checkpoint

_LONGEST_WAVELENGTH = 10_000
# Rows of a whole second.
_ROWS_PER_SECOND = token_count(FRAMES_PER_SECOND)
# Seconds convolved at once. A CPU is fastest while the images fit its cache; elsewhere this bounds the memory.
_SECONDS_AT_ONCE_CPU, _SECONDS_AT_ONCE = 1, 256


@dataclass(frozen=True, slots=True)
class AudioWindow:
    """At most 8 s of one sound, encoded on its own."""

    mel: Tensor  # (mel bins, frames), clamped and scaled
    # Frames to which an incomplete last second is padded: the longest second of the request.
    padded_second: int

    @property
    def rows(self) -> int:
        return token_count(self.mel.shape[1])


class WindowEncoder(Protocol):
    """What turns windows into rows."""

    def encode_windows(self, windows: Sequence[AudioWindow]) -> list[Tensor]:
        """(rows, output width) for each window, of one request or of many."""
        ...


class AudioEncoder(nn.Module):
    # Where the rows of a second stand in it, (rows, width).
    _positions: Tensor

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.conv_channels
        self.conv2d1 = nn.Conv2d(1, channels, 3, 2, padding=1)
        self.conv2d2 = nn.Conv2d(channels, channels, 3, 2, padding=1)
        self.conv2d3 = nn.Conv2d(channels, channels, 3, 2, padding=1)
        bins_left = -(-config.mel_bins // 8)
        self.conv_out = nn.Linear(channels * bins_left, config.width, bias=False)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.ln_post = nn.LayerNorm(config.width)
        self.proj1 = nn.Linear(config.width, config.width)
        self.proj2 = nn.Linear(config.width, config.output_width)
        self.register_buffer("_positions", torch.empty(0), persistent=False)

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, config: OmniConfig, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> "AudioEncoder":
        """Reads `thinker.audio_tower.*` only. Raises CheckpointError when a tensor is missing or does not fit."""
        with torch.device("meta"):
            encoder = cls(config.thinker.audio)
        checkpoint.fill(encoder, "thinker.audio_tower.", dtype=dtype, device=device)
        encoder._positions = _sinusoids(_ROWS_PER_SECOND, encoder.config.width).to(device, dtype)
        return encoder.eval()

    def windows(self, mels: Sequence[Tensor], padded_second: int | None = None) -> list[list[AudioWindow]]:
        """The windows of each sound of one request; concatenated, their rows are the sound's. `padded_second` is of all
        its sounds, when some are not among these."""
        padded = padded_second or self.padded_second(mel.shape[1] for mel in mels)
        size = self.config.attention_window
        return [[AudioWindow(part, padded) for part in torch.split(mel, size, dim=1)] for mel in mels]

    def padded_second(self, frame_counts: Iterable[int]) -> int:
        """Frames to which an incomplete last second of these sounds is padded, all of one request."""
        return min(max(frame_counts, default=0), FRAMES_PER_SECOND)

    def encode(self, mels: Sequence[Tensor]) -> list[Tensor]:
        """The sounds of one request, each (mel bins, frames) -> each (rows, output width)."""
        windows = self.windows(mels)
        encoded = iter(self.encode_windows([window for sound in windows for window in sound]))
        return [torch.cat([next(encoded) for _ in sound]) for sound in windows]

    def encode_windows(self, windows: Sequence[AudioWindow]) -> list[Tensor]:
        """(rows, output width) for each window, of one request or of many; windows of one shape go together."""
        rows: list[Tensor] = [torch.empty(0)] * len(windows)
        shapes = {index: (window.mel.shape[1], window.padded_second) for index, window in enumerate(windows)}
        for (_, padded), same in groupby(sorted(shapes, key=shapes.__getitem__), key=shapes.__getitem__):
            indices = list(same)
            for index, encoded in zip(indices, self._encode([windows[i].mel for i in indices], padded), strict=True):
                rows[index] = encoded
        return rows

    @torch.inference_mode()
    def _encode(self, mels: list[Tensor], padded_second: int) -> Tensor:
        weight = self.conv_out.weight
        encoded: Tensor = self(torch.stack(mels).to(weight.device, weight.dtype), padded_second)
        return encoded

    def forward(self, mels: Tensor, padded_second: int, row_counts: Tensor | None = None) -> Tensor:
        """mels (windows, mel bins, frames) -> (windows, rows, output width). Where windows end earlier, the rest of
        their frames is 0, and row_counts (windows), at least 1, tell the rows of each: nothing attends to later ones.
        """
        hidden = self._convolve(mels, padded_second)[:, : token_count(mels.shape[2])]
        mask = None if row_counts is None else _mask(hidden, row_counts)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        rows: Tensor = self.proj2(functional.gelu(self.proj1(self.ln_post(hidden))))
        return rows

    def _convolve(self, mels: Tensor, padded_second: int) -> Tensor:
        """Second by second: (windows, seconds * rows a second, width)."""
        windows, bins, frames = mels.shape
        missing = -frames % padded_second
        seconds = functional.pad(mels, (0, missing)).view(windows, bins, -1, padded_second)
        images = seconds.transpose(1, 2).reshape(-1, 1, bins, padded_second)
        at_once = _SECONDS_AT_ONCE_CPU if images.is_cpu else _SECONDS_AT_ONCE
        rows: Tensor = self.conv_out(torch.cat([self._convolve_seconds(part) for part in torch.split(images, at_once)]))
        return (rows + self._positions[: rows.shape[1]]).view(windows, -1, self.config.width)

    def _convolve_seconds(self, images: Tensor) -> Tensor:
        """(seconds, 1, mel bins, frames) -> (seconds, rows, channels * bins left)."""
        for convolve in (self.conv2d1, self.conv2d2, self.conv2d3):
            images = functional.gelu(convolve(images))  # halves bins and frames
        return images.permute(0, 3, 1, 2).flatten(2)


class _Layer(nn.Module):
    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.self_attn_layer_norm = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.feed_forward)
        self.fc2 = nn.Linear(config.feed_forward, config.width)
        self.final_layer_norm = nn.LayerNorm(config.width)

    def forward(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        rows = rows + self.self_attn(self.self_attn_layer_norm(rows), mask)
        fed: Tensor = self.fc2(functional.gelu(self.fc1(self.final_layer_norm(rows))))
        return rows + fed


class _Attention(nn.Module):
    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self._heads = config.heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj = nn.Linear(config.width, config.width)
        self.v_proj = nn.Linear(config.width, config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        queries, keys, values = (self._split(project(rows)) for project in (self.q_proj, self.k_proj, self.v_proj))
        mixed = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        projected: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def _split(self, rows: Tensor) -> Tensor:
        return rows.view(*rows.shape[:2], self._heads, -1).transpose(1, 2)


def _mask(rows: Tensor, row_counts: Tensor) -> Tensor:
    """To add to attention weights, (windows, 1, 1, keys): 0 for the keys that a window has, else no chance."""
    is_beyond = torch.arange(rows.shape[1], device=rows.device) >= row_counts[:, None]
    return rows.new_zeros(is_beyond.shape).masked_fill_(is_beyond, -torch.inf)[:, None, None]


def _sinusoids(rows: int, width: int) -> Tensor:
    """Positions of the rows of one second, (rows, width): half sines, half cosines; they restart every second."""
    half = width // 2
    step = torch.log(torch.tensor(float(_LONGEST_WAVELENGTH), dtype=torch.float64)) / (half - 1)
    rates = torch.exp(-step.float() * torch.arange(half).float())
    angles = torch.outer(torch.arange(rows).float(), rates)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
