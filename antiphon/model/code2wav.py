"""Code2Wav: frames of codes to 24 kHz sound, whole or frame by frame with carried state, the same samples exactly.

Frames of several streams go through side by side; `Code2WavStreams` keeps what each remembers.
"""

from collections.abc import Iterable
from itertools import chain, pairwise
from math import ceil, prod
from typing import cast

import torch
from torch import Tensor, nn

from antiphon.model.causal_convolution import Causal, CausalConv, DepthwiseConv, Snake, Tails, UpsamplingConv
from antiphon.model.code2wav_streams import PUSH_FRAMES as PUSH_FRAMES
from antiphon.model.code2wav_streams import Code2WavState, Code2WavStream, Code2WavStreams
from antiphon.model.code2wav_transformer import PreTransformer
from antiphon.model.config import Code2WavConfig, OmniConfig
from antiphon.model.row_products import row_by_row
from antiphon.model.weights import Checkpoint

_DILATIONS = (1, 3, 9)
# Rows that a convolution looks at.
_KERNEL = 7


class Code2Wav(nn.Module):
    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        self.config = config
        self.code_embedding = _Table(config.codebook_size * config.quantizers, config.width)
        self.pre_transformer = PreTransformer(config)
        self.upsample = nn.ModuleList(
            nn.ModuleList(
                [UpsamplingConv(config.width, config.width, ratio, 1, rows_a_frame=1), _ConvNext(config.width)]
            )
            for ratio in config.upsampling_ratios
        )
        self.decoder = nn.ModuleList(_decoder_layers(config))
        self._causal = [module for module in self.modules() if isinstance(module, Causal)]
        for slot, layer in enumerate(self._causal):
            layer.slot = slot

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, config: OmniConfig, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> "Code2Wav":
        """Reads `code2wav.*` only. Raises CheckpointError when the checkpoint cannot speak or lacks a tensor."""
        with torch.device("meta"):
            model = cls(config.require_code2wav())
        checkpoint.fill(model, "code2wav.", dtype=dtype, device=device)
        for module in model.modules():
            if isinstance(module, Causal | Snake):
                module.pack()
        return model.eval()

    @property
    def samples_per_frame(self) -> int:
        return prod(self.config.upsample_rates) * prod(self.config.upsampling_ratios)

    @property
    def lookahead_samples(self) -> int:
        """Samples that wait for the frame after them: n frames give n * samples_per_frame less this many."""
        rows = 0
        for rate in self.config.upsample_rates:
            rows = (rows + 1) * rate
        return rows

    @property
    def context_frames(self) -> int:
        """Frames before one that its samples follow from; what was before those cannot be heard in it."""
        config, rows_per_frame = self.config, 1
        frames = 0.0
        for ratio in config.upsampling_ratios:
            rows_per_frame *= ratio
            frames += (_KERNEL - 1) / rows_per_frame
        frames += (_KERNEL - 1) / rows_per_frame
        for rate in config.upsample_rates:
            frames += 1 / rows_per_frame
            rows_per_frame *= rate
            frames += (_KERNEL - 1) * sum(_DILATIONS) / rows_per_frame
        frames += (_KERNEL - 1) / rows_per_frame
        return config.layers * (config.sliding_window - 1) + ceil(frames)

    def streams(self) -> Code2WavStreams:
        """For streams whose pushes may go together."""
        return Code2WavStreams(self)

    def stream(self, state: Code2WavState | None = None) -> Code2WavStream:
        """A new stream on its own, or one that goes on from an exported state."""
        streams = self.streams()
        stream = streams.open()
        if state is not None:
            streams.restore(stream, state)
        return stream

    def decode(self, codes: Tensor) -> Tensor:
        """codes (frames, quantizers) of a whole speech -> float32 (samples,)."""
        return self.stream().push(codes)

    def forward(self, codes: Tensor, keys_values: Tensor, frame_counts: Tensor, tails: Tails) -> Tensor:
        """The samples (streams, samples) that become final with `codes` (streams, frames, quantizers). The streams have
        `frame_counts` (streams) frames before these; `keys_values` and `tails` go on to those after them."""
        offsets = torch.arange(self.config.quantizers, device=codes.device) * self.config.codebook_size
        embedded: Tensor = self.code_embedding(codes + offsets).mean(2)
        rows: Tensor = self.pre_transformer(embedded, keys_values, frame_counts)
        for layer in chain.from_iterable(cast("Iterable[nn.ModuleList]", self.upsample)):
            rows = layer(rows, tails)
        for layer in self.decoder:
            rows = layer(rows) if isinstance(layer, Snake) else layer(rows, tails)
        return rows[:, :, 0].clamp(-1.0, 1.0).float()

    def new_keys_values(self, streams: int) -> Tensor:
        """What streams without a frame remember of keys and values."""
        return self.pre_transformer.new_keys_values(streams)

    def new_tails(self, streams: int) -> Tails:
        return [layer.first_tail(streams, self.code_embedding.weight) for layer in self._causal]


class _Table(nn.Module):
    """An embedding; nn.Embedding would draw random weights first, whose code takes a second to import."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(ids, self.weight)


class _ConvNext(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = DepthwiseConv(channels, _KERNEL)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.empty(channels))

    def forward(self, rows: Tensor, tails: Tails) -> Tensor:
        return rows + row_by_row(self._refined, self.dwconv(rows, tails))

    def _refined(self, rows: Tensor) -> Tensor:
        refined: Tensor = self.gamma * self.pwconv2(nn.functional.gelu(self.pwconv1(self.norm(rows))))
        return refined


class _ResidualUnit(nn.Module):
    def __init__(self, channels: int, dilation: int, rows_a_frame: int) -> None:
        super().__init__()
        self.act1 = Snake(channels)
        self.conv1 = CausalConv(channels, channels, _KERNEL, dilation, rows_a_frame=rows_a_frame)
        self.act2, self.conv2 = Snake(channels), CausalConv(channels, channels, 1, rows_a_frame=rows_a_frame)

    def forward(self, rows: Tensor, tails: Tails) -> Tensor:
        refined: Tensor = self.conv2(self.act2(self.conv1(self.act1(rows), tails)), tails)
        return rows + refined


class _DecoderBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, rate: int, rows_a_frame: int) -> None:
        super().__init__()
        raises = UpsamplingConv(channels_in, channels_out, rate, 2, rows_a_frame=rows_a_frame)
        units = [_ResidualUnit(channels_out, dilation, rows_a_frame * rate) for dilation in _DILATIONS]
        self.block = nn.ModuleList([Snake(channels_in), raises, *units])

    def forward(self, rows: Tensor, tails: Tails) -> Tensor:
        activate, *layers = self.block
        rows = activate(rows)
        for layer in layers:
            rows = layer(rows, tails)
        return rows


def _decoder_layers(config: Code2WavConfig) -> Iterable[nn.Module]:
    widths = [config.decoder_width // 2**level for level in range(len(config.upsample_rates) + 1)]
    rows = prod(config.upsampling_ratios)
    yield CausalConv(config.width, widths[0], _KERNEL, rows_a_frame=rows)
    for (channels_in, channels_out), rate in zip(pairwise(widths), config.upsample_rates, strict=True):
        yield _DecoderBlock(channels_in, channels_out, rate, rows)
        rows *= rate
    yield Snake(widths[-1])
    yield CausalConv(widths[-1], 1, _KERNEL, rows_a_frame=rows)
