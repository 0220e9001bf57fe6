"""How every Triton kernel here is launched, and what the interpreter needs differently."""

import os
from typing import Any

import torch
import triton
import triton.language as tl

# Without a GPU Triton can interpret its kernels. The interpreter cannot multiply bfloat16 matrices.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int = 4, stages: int = 3, **constants: bool | float
) -> None:
    """Runs the kernel over the grid unless that is empty; constants are compiled into it."""
    if 0 not in grid:
        # Said aloud because its default changes between versions of Triton.
        kernel[grid](*arguments, **constants, num_warps=warps, num_stages=stages, enable_fp_fusion=True)


def widens(dtype: torch.dtype) -> bool:
    """Whether matrices of that type are multiplied as float32."""
    return INTERPRETED or dtype == torch.float32


def power_of_two(count: int) -> int:
    return int(triton.next_power_of_2(count))


@triton.jit
def product(left: tl.tensor, right: tl.tensor, total: tl.tensor, wide: tl.constexpr) -> tl.tensor:
    """total + left @ right in float32, without TF32."""
    if wide:
        return tl.dot(left.to(tl.float32), right.to(tl.float32), total, input_precision="ieee")
    return tl.dot(left, right, total)
