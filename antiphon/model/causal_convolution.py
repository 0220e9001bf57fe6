"""Convolutions over rows in time that carry the end of their input from one push to the next.

Rows are (batch, time, channels). Where a codec frame is few rows, a matrix product over windows of rows is two to five
times as fast as a convolution on a CPU, and CUDA's convolutions may round to TF32; where it is many, a CPU convolves
twice as fast as it multiplies. A layer does always the one or the other, so that a row's bits do not depend on the rows
that come with it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from antiphon.model.row_products import can_convolve, convolved, row_by_row

# A CPU convolves where a frame has this many rows a channel (measured with 16 to 256 channels, 1 to 16
# frames of one and four streams).
_CONVOLVED_ROWS_PER_CHANNEL = 1

# What one stream's layers keep of their past input, one tensor (batch, rows, channels) a layer, by the layer's slot.
Tails = list[Tensor]


class Causal(nn.Module):
    """A layer whose output row depends on its input row and the `reach` rows before it.

    The parameters lie as on disk until `pack` lays them out for the matrix product.
    """

    slot: int

    def __init__(
        self, channels: int, kernel: int, dilation: int, rows_a_frame: int, *, zeros_before_start: bool
    ) -> None:
        """rows_a_frame: of its input."""
        super().__init__()
        self.channels, self.kernel, self.dilation = channels, kernel, dilation
        self.convolves = kernel > 1 and rows_a_frame >= _CONVOLVED_ROWS_PER_CHANNEL * channels
        self.reach = (kernel - 1) * dilation
        self.rows_before_start = self.reach if zeros_before_start else 0

    def pack(self) -> None:
        raise NotImplementedError

    def first_tail(self, batch: int, like: Tensor) -> Tensor:
        return like.new_zeros(batch, self.rows_before_start, self.channels)

    def extended(self, rows: Tensor, tails: Tails) -> Tensor:
        """The rows with the carried ones before them; `reach` fewer outputs than rows can be computed now."""
        if not self.reach:
            return rows
        rows = torch.cat([tails[self.slot], rows], dim=1)
        tails[self.slot] = rows[:, max(rows.shape[1] - self.reach, 0) :].clone()
        return rows

    def windows(self, rows: Tensor) -> Tensor:
        """(batch, outputs, kernel, channels), a view."""
        batch, count, channels = rows.shape
        size = (batch, max(count - self.reach, 0), self.kernel, channels)
        return rows.as_strided(size, (count * channels, channels, self.dilation * channels, 1))

    def product(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """weight (channels out, kernel * channels) over every window."""
        if self.convolves and rows.shape[1] > self.reach and can_convolve(rows):
            return convolved(rows, weight, bias, self.dilation)
        windows = rows if self.kernel == 1 else self.windows(rows).flatten(2)
        return row_by_row(lambda each: functional.linear(each, weight, bias), windows)


class CausalConv(Causal):
    """Conv1d padded with zeros on the left only."""

    weight: Tensor  # (channels out, kernel * channels in)
    bias: Tensor

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, dilation: int = 1, *, rows_a_frame: int
    ) -> None:
        super().__init__(channels_in, kernel, dilation, rows_a_frame, zeros_before_start=True)
        self.conv = nn.Conv1d(channels_in, channels_out, kernel)

    def pack(self) -> None:
        weight, bias = _taken(self.conv)
        self.weight, self.bias = weight.permute(0, 2, 1).flatten(1).contiguous(), bias
        del self.conv

    def forward(self, rows: Tensor, tails: Tails) -> Tensor:
        return self.product(self.extended(rows, tails), self.weight, self.bias)


class DepthwiseConv(Causal):
    """Conv1d with one filter a channel, padded with zeros on the left only."""

    weight: Tensor  # (kernel, channels)
    bias: Tensor

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, kernel, 1, 0, zeros_before_start=True)
        self.conv = nn.Conv1d(channels, channels, kernel, groups=channels)

    def pack(self) -> None:
        weight, bias = _taken(self.conv)
        self.weight, self.bias = weight.squeeze(1).T.contiguous(), bias
        del self.conv

    def forward(self, rows: Tensor, tails: Tails) -> Tensor:
        return (self.windows(self.extended(rows, tails)) * self.weight).sum(2) + self.bias


class UpsamplingConv(Causal):
    """ConvTranspose1d whose kernel is one or two strides long, less what overhangs at both ends.

    With two strides the `stride` output rows lie between two input rows, so the last input waits for its successor.
    """

    weight: Tensor  # (stride * channels out, steps * channels in)
    bias: Tensor

    def __init__(self, channels_in: int, channels_out: int, stride: int, steps: int, *, rows_a_frame: int) -> None:
        super().__init__(channels_in, steps, 1, rows_a_frame, zeros_before_start=False)
        self.stride, self.channels_out = stride, channels_out
        self.conv = nn.ConvTranspose1d(channels_in, channels_out, steps * stride, stride=stride)

    def pack(self) -> None:
        weight, bias = _taken(self.conv)  # (channels in, channels out, steps * stride)
        taps = weight.view(self.channels, self.channels_out, self.kernel, self.stride).flip(2).permute(3, 1, 2, 0)
        self.weight = taps.reshape(self.stride * self.channels_out, self.kernel * self.channels).contiguous()
        self.bias = bias.repeat(self.stride)
        del self.conv

    def forward(self, rows: Tensor, tails: Tails) -> Tensor:
        spread = self.product(self.extended(rows, tails), self.weight, self.bias)
        return spread.reshape(spread.shape[0], spread.shape[1] * self.stride, self.channels_out)


class Snake(nn.Module):
    """x + sin^2(alpha x) / beta for each channel (https://arxiv.org/abs/2006.08195); both are stored as logarithms."""

    frequency: Tensor
    inverse_magnitude: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels))

    def pack(self) -> None:
        self.frequency = self.alpha.detach().exp()
        self.inverse_magnitude = 1.0 / (self.beta.detach().exp() + 1e-9)
        del self.alpha, self.beta

    def forward(self, rows: Tensor) -> Tensor:
        wave = torch.mul(rows, self.frequency).sin_().square_()
        return torch.addcmul(rows, wave, self.inverse_magnitude)


def _taken(conv: nn.Conv1d | nn.ConvTranspose1d) -> tuple[Tensor, Tensor]:
    parameters = dict(conv.named_parameters())
    return parameters["weight"].detach(), parameters["bias"].detach()
