"""The small operations in plain torch: what a CPU computes with, and what the fused kernels must equal."""

import torch
import torch.nn.functional as F
from torch import Tensor

from antiphon.model.kernels.arguments import CachePlace
from antiphon.model.rotary import Rotation


def normalise(rows: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS normalisation over the last dimension, computed in float32, cast back, then scaled: the order of the
    reference, which bfloat16 can tell apart."""
    if rows.is_cpu and rows.dtype == torch.float32:
        return _normalised(rows, weight, eps)
    return F.rms_norm(rows.float(), rows.shape[-1:], None, eps).to(rows.dtype) * weight


def _normalised(rows: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The same in six operations. rms_norm has no kernel for CPUs: there it is fourteen, conversions included."""
    squares = torch.sum(rows * rows, -1, True)
    return torch.rsub(squares, eps, alpha=-1 / rows.shape[-1]).rsqrt_().mul(rows).mul_(weight)


def add_normalise(rows: Tensor, added: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The sum of both, and the same normalised."""
    total = rows + added
    return total, normalise(total, weight, eps)


def gated(gate_up: Tensor) -> Tensor:
    """silu(first half) * second half, over the last dimension."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def add_behind_gate(rows: Tensor, gate: Tensor, added: Tensor) -> Tensor:
    """rows (rows, width) + sigmoid(gate) * added, where gate is (rows, 1)."""
    return rows + gate.sigmoid() * added


def turn_heads(
    heads: Tensor, scale: Tensor, eps: float, rotation: Rotation, place: CachePlace | None
) -> tuple[Tensor, Tensor, Tensor]:
    """heads (..., rows, query heads + 2 * kv heads, head width) and scale (query heads + kv heads, head width) ->
    queries and keys normalised per head and turned, and values. With a place, keys and values are kept there; heads
    may be overwritten."""
    kv_heads = heads.shape[-2] - len(scale)
    # torch.split is three times as slow on a CPU: a wrapper in Python.
    queries_keys, values = heads.split_with_sizes([len(scale), kv_heads], -2)
    turned = rotation.turn(normalise(queries_keys, scale, eps))
    queries, keys = turned.split_with_sizes([len(scale) - kv_heads, kv_heads], -2)
    if place is not None:
        place.keys.index_copy_(0, place.slots, keys)
        place.values.index_copy_(0, place.slots, values)
    return queries, keys, values


def choose_experts(logits: Tensor, count: int, normalises: bool) -> tuple[Tensor, Tensor]:
    """logits (rows, experts) -> weights in their type and int64 expert ids, both (rows, count). The softmax over all
    experts is in float32."""
    scores = F.softmax(logits, dim=-1, dtype=torch.float32)
    weights, expert_ids = scores.topk(count, dim=-1)
    if normalises:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights.to(logits.dtype), expert_ids
