"""One kernel from projected heads to attention: normalises queries and keys per head, turns them in place, and keeps
keys and values in their pages.

It rounds where its twin in plain torch does: in bfloat16 they differ by at most one rounding of a product, 2**-7 of
the largest value of a head; in float32 by 1e-5.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from antiphon.model.kernels.arguments import CachePlace
from antiphon.model.kernels.launching import launch, power_of_two
from antiphon.model.rotary import Rotation

# Heads that one program works on.
_HEADS = 8


def turn_heads(
    heads: Tensor, scale: Tensor, eps: float, rotation: Rotation, place: CachePlace | None
) -> tuple[Tensor, Tensor, Tensor]:
    head_count, width = heads.shape[-2:]
    kv_heads = head_count - len(scale)
    heads = heads.contiguous()
    touched = head_count if place is not None else len(scale)
    launch(
        _turn,
        (heads.numel() // (head_count * width), triton.cdiv(touched, _HEADS)),
        *(heads, scale, rotation.cos, rotation.signed_sin),
        *((place.keys, place.values, place.slots) if place is not None else (heads, heads, heads)),
        *(len(rotation.cos), eps),
        query_heads=len(scale) - kv_heads,
        kv_heads=kv_heads,
        half=width // 2,
        block=power_of_two(width // 2),
        heads_at_once=_HEADS,
        keeps=place is not None,
        warps=2,
    )
    queries, keys, values = torch.split(heads, [len(scale) - kv_heads, kv_heads, kv_heads], -2)
    return queries, keys, values


@triton.jit(do_not_specialize=["rotation_rows"])
def _turn(
    heads: tl.tensor,
    scale: tl.tensor,
    cosine: tl.tensor,
    signed_sine: tl.tensor,
    kept_keys: tl.tensor,
    kept_values: tl.tensor,
    slots: tl.tensor,
    rotation_rows: int,
    eps: float,
    query_heads: tl.constexpr,
    kv_heads: tl.constexpr,
    half: tl.constexpr,
    block: tl.constexpr,
    heads_at_once: tl.constexpr,
    keeps: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * heads_at_once + tl.arange(0, heads_at_once))[:, None]
    column = tl.arange(0, block)[None, :]
    inside = (head < query_heads + 2 * kv_heads) & (column < half)
    turns = inside & (head < query_heads + kv_heads)
    source = heads + row * (query_heads + 2 * kv_heads) * 2 * half + head * 2 * half + column
    left, right = tl.load(source, mask=inside, other=0.0), tl.load(source + half, mask=inside, other=0.0)
    kind = left.dtype
    narrow_left, narrow_right = _normalised(left.to(tl.float32), right.to(tl.float32), eps, half, kind)
    scale_at = scale + head * 2 * half + column
    narrow_left = (narrow_left * tl.load(scale_at, mask=turns, other=0.0).to(tl.float32)).to(kind)
    narrow_right = (narrow_right * tl.load(scale_at + half, mask=turns, other=0.0).to(tl.float32)).to(kind)
    angle = (row % rotation_rows) * 2 * half + column
    turned_left = _rotated(narrow_left, narrow_right, cosine + angle, signed_sine + angle, column < half)
    angle += half
    turned_right = _rotated(narrow_right, narrow_left, cosine + angle, signed_sine + angle, column < half)
    tl.store(source, turned_left, mask=turns)
    tl.store(source + half, turned_right, mask=turns)
    if keeps:
        slot = tl.load(slots + row).to(tl.int64)
        is_key = turns & (head >= query_heads)
        key = kept_keys + (slot * kv_heads + head - query_heads) * 2 * half + column
        tl.store(key, turned_left, mask=is_key)
        tl.store(key + half, turned_right, mask=is_key)
        is_value = inside & (head >= query_heads + kv_heads)
        value = kept_values + (slot * kv_heads + head - query_heads - kv_heads) * 2 * half + column
        tl.store(value, left, mask=is_value)
        tl.store(value + half, right, mask=is_value)


@triton.jit
def _normalised(
    left: tl.tensor, right: tl.tensor, eps: float, half: tl.constexpr, kind: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """Both halves of each head over their common root mean square, rounded to `kind`, as float32."""
    squares = tl.sum(left * left, 1) + tl.sum(right * right, 1)
    factor = tl.rsqrt(squares / (2 * half) + eps)[:, None]
    return (left * factor).to(kind).to(tl.float32), (right * factor).to(kind).to(tl.float32)


@triton.jit
def _rotated(
    own: tl.tensor, other: tl.tensor, cosine: tl.tensor, signed_sine: tl.tensor, inside: tl.tensor
) -> tl.tensor:
    """own * cosine, rounded, plus other * signed sine, rounded."""
    along = tl.load(cosine, mask=inside, other=0.0).to(tl.float32)
    across = tl.load(signed_sine, mask=inside, other=0.0).to(tl.float32)
    first = (own.to(tl.float32) * along).to(own.dtype).to(tl.float32)
    return (first + other.to(tl.float32) * across).to(own.dtype)
