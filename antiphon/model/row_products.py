"""Computing row by row such that a row's bits do not depend on how many rows there are.

Matrix products on a CPU treat the last one to three rows otherwise and sum them in another order: oneMKL did so below
4 rows, and with several threads below 12 unless they were a multiple of 4 (measured with 1 to 8 threads, products of 16
to 3,072 columns). oneDNN's convolutions did not; torch takes another one for small images unless told which.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

# Few rows are filled up to a multiple of this.
_ROWS_AT_ONCE: Final = 4
_FEW_ROWS: Final = 16
_HAS_ONEDNN: Final = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def row_by_row(compute: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """rows (..., width) -> (..., another width), where `compute` treats each of them alone; it gets (rows, width)."""
    # torch multiplies a matrix that lies in one piece otherwise than one of windows that overlap.
    flat = rows.reshape(-1, rows.shape[-1]).contiguous()
    count = len(flat)
    lacking = -count % _ROWS_AT_ONCE
    if lacking and count < _FEW_ROWS and rows.is_cpu:
        flat = functional.pad(flat, (0, 0, 0, lacking))
    return compute(flat)[:count].view(*rows.shape[:-1], -1)


def convolved(rows: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """rows (batch, time, channels), weight (channels out, kernel * channels) -> (batch, outputs, channels out). For
    float32 on a CPU whose torch has oneDNN (`can_convolve`)."""
    # Seen as images one pixel wide, rows and weight already lie "channels last", the order that oneDNN likes best.
    channels = rows.shape[2]
    image = rows.unsqueeze(2).permute(0, 3, 1, 2)
    filters = weight.view(len(weight), -1, 1, channels).permute(0, 3, 1, 2)
    out = torch.mkldnn_convolution(image, filters, bias, (0, 0), (1, 1), (dilation, 1), 1)
    return out.permute(0, 2, 3, 1).squeeze(2).contiguous()


def can_convolve(rows: Tensor) -> bool:
    return rows.is_cpu and rows.dtype is torch.float32 and _HAS_ONEDNN
