"""Mixtures of few small experts, trained: every expert computes every row, as two matrix products without a loop.

With eight experts of which two count, three quarters of the work is thrown away, and it is still faster than sorting
rows by expert; shapes stay fixed, so that a whole step can become one CUDA graph.
"""

from collections.abc import Iterator
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROUTER_Z_WEIGHT = 1e-3


def use_dense_experts(model: nn.Module) -> None:
    """Replaces the forward of every block of experts in `model`, a transformers Thinker or Talker; same results."""
    for experts in _blocks_of_experts(model):
        experts.forward = MethodType(_dense_experts, experts)


def _blocks_of_experts(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if hasattr(module, "gate_up_proj") and hasattr(module, "down_proj"))


def _dense_experts(experts: nn.Module, rows: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """rows (n, width), chosen int64 and weights (n, top k) -> (n, width)"""
    gate_up, down = experts.get_parameter("gate_up_proj"), experts.get_parameter("down_proj")
    count, both, width = gate_up.shape
    share = rows.new_zeros(len(rows), count, dtype=weights.dtype).scatter(1, chosen, weights)
    gates, ups = F.linear(rows, gate_up.reshape(count * both, width)).view(-1, count, both).chunk(2, dim=-1)
    inner = F.silu(gates) * ups * share[..., None].to(gates.dtype)
    return F.linear(inner.flatten(1), down.permute(1, 0, 2).reshape(width, -1))


class RouterBalance:
    """Watches the routers of `model` while gradients are recorded, and gives the load-balancing loss of the last
    forward (Switch Transformer, arXiv 2101.03961, eq. 4) with the router z-loss (ST-MoE, arXiv 2202.08906, eq. 5)."""

    def __init__(self, model: nn.Module) -> None:
        self._losses: dict[nn.Module, Tensor] = {}
        for module in model.modules():
            if hasattr(module, "gate") and hasattr(module, "experts"):
                module.get_submodule("gate").register_forward_hook(self._watch)

    def take(self) -> Tensor:
        """Scalar, the mean over the routers: 1 for perfect balance, and little for the z-loss. Forgets what it saw."""
        loss = torch.stack([*self._losses.values()]).mean()
        self._losses.clear()
        return loss

    def _watch(self, router: nn.Module, _: tuple[Tensor, ...], outputs: tuple[Tensor, Tensor, Tensor]) -> None:
        """outputs: logits (n, experts), weights and int64 choices (n, top k)"""
        if not torch.is_grad_enabled():
            return
        logits, chosen = outputs[0].float(), outputs[2]
        probabilities = logits.softmax(dim=-1)
        load = torch.zeros_like(probabilities).scatter(1, chosen, 1.0).mean(dim=0)
        balance = logits.shape[-1] * (load.detach() * probabilities.mean(dim=0)).sum() / chosen.shape[-1]
        self._losses[router] = balance + ROUTER_Z_WEIGHT * logits.logsumexp(dim=-1).square().mean()
