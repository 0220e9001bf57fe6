"""Kernels over single rows: RMS normalisation (with the residual before it) and the gates of feed-forwards.

Each rounds where its twin in plain torch does, so in bfloat16 they differ by at most one rounding: 2**-8 of the value;
in float32 by 1e-6.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from antiphon.model.kernels.launching import launch, power_of_two

_GATE_COLUMNS = 1024


def normalise(rows: Tensor, weight: Tensor, eps: float) -> Tensor:
    flat = rows.reshape(-1, rows.shape[-1])
    normalised = torch.empty(rows.shape, dtype=rows.dtype, device=rows.device)
    block = power_of_two(rows.shape[-1])
    launch(
        _normalise,
        (len(flat),),
        *(flat, flat, weight, normalised, normalised, flat.stride(0), eps),
        width=rows.shape[-1],
        block=block,
        adds=False,
        warps=4 if block <= 1024 else 8,
    )
    return normalised


def add_normalise(rows: Tensor, added: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    flat, more = rows.reshape(-1, rows.shape[-1]).contiguous(), added.reshape(-1, rows.shape[-1]).contiguous()
    total, normalised = (torch.empty(rows.shape, dtype=rows.dtype, device=rows.device) for _ in range(2))
    block = power_of_two(rows.shape[-1])
    launch(
        _normalise,
        (len(flat),),
        *(flat, more, weight, total, normalised, flat.stride(0), eps),
        width=rows.shape[-1],
        block=block,
        adds=True,
        warps=4 if block <= 1024 else 8,
    )
    return total, normalised


def gated(gate_up: Tensor) -> Tensor:
    flat, width = gate_up.reshape(-1, gate_up.shape[-1]).contiguous(), gate_up.shape[-1] // 2
    out = torch.empty((*gate_up.shape[:-1], width), dtype=gate_up.dtype, device=gate_up.device)
    block = min(_GATE_COLUMNS, power_of_two(width))
    launch(_gate, (len(flat), triton.cdiv(width, block)), flat, out, width=width, block=block)
    return out


def add_behind_gate(rows: Tensor, gate: Tensor, added: Tensor) -> Tensor:
    total, width = torch.empty_like(rows, memory_format=torch.contiguous_format), rows.shape[-1]
    block = min(_GATE_COLUMNS, power_of_two(width))
    inputs = (each.contiguous() for each in (rows, gate, added))
    launch(_add, (rows.numel() // width, triton.cdiv(width, block)), *inputs, total, width=width, block=block)
    return total


@triton.jit
def _normalise(
    rows: tl.tensor,
    added: tl.tensor,
    weight: tl.tensor,
    total: tl.tensor,
    normalised: tl.tensor,
    row_stride: int,
    eps: float,
    width: tl.constexpr,
    block: tl.constexpr,
    adds: tl.constexpr,
) -> None:
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    inside = column < width
    value = tl.load(rows + row * row_stride + column, mask=inside, other=0.0)
    kind = value.dtype
    if adds:
        more = tl.load(added + row * row_stride + column, mask=inside, other=0.0)
        value = (value.to(tl.float32) + more.to(tl.float32)).to(kind)
        tl.store(total + row * width + column, value, mask=inside)
    wide = value.to(tl.float32)
    narrow = (wide * tl.rsqrt(tl.sum(wide * wide, 0) / width + eps)).to(kind)
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(normalised + row * width + column, (narrow.to(tl.float32) * scale).to(kind), mask=inside)


@triton.jit
def _gate(gate_up: tl.tensor, out: tl.tensor, width: tl.constexpr, block: tl.constexpr) -> None:
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0)
    tl.store(out + row * width + column, gate_with(gate.to(tl.float32), up.to(tl.float32), gate.dtype), mask=inside)


@triton.jit
def _add(
    rows: tl.tensor, gate: tl.tensor, added: tl.tensor, total: tl.tensor, width: tl.constexpr, block: tl.constexpr
) -> None:
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * block + tl.arange(0, block)
    inside = column < width
    value = tl.load(rows + row * width + column, mask=inside, other=0.0)
    more = tl.load(added + row * width + column, mask=inside, other=0.0).to(tl.float32)
    kind = value.dtype
    opened = (1.0 / (1.0 + tl.exp(-tl.load(gate + row).to(tl.float32)))).to(kind).to(tl.float32)
    more = (opened * more).to(kind).to(tl.float32)
    tl.store(total + row * width + column, (value.to(tl.float32) + more).to(kind), mask=inside)


@triton.jit
def gate_with(gate: tl.tensor, up: tl.tensor, kind: tl.constexpr) -> tl.tensor:
    """silu(gate) * up of float32 values that fit `kind`, rounded to it after each of both."""
    opened = (gate / (1.0 + tl.exp(-gate))).to(kind)
    return (opened.to(tl.float32) * up).to(kind)
