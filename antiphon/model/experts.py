"""The mixture of experts: the router, the seam behind which experts may live anywhere, and experts in this process."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.errors import CheckpointError
from antiphon.model.config import DecoderConfig
from antiphon.model.layers import SwiGLU, gated
from antiphon.model.weights import Checkpoint, load_experts

# On a CPU, up to this many (row, expert) pairs are cheaper one by one than sorted and grouped.
FEW_PAIRS = 8


class Experts(Protocol):
    """The experts of one layer."""

    def __call__(self, hidden: Tensor, expert_ids: Tensor, weights: Tensor) -> Tensor:
        """hidden (rows, width), expert_ids int64 (rows, k), weights (rows, k) -> (rows, width).

        Each row is the sum, in slot order, of its k experts' outputs times their weights. An expert that cannot be
        reached is an error, never skipped.
        """
        ...


# Gives the experts of the layer with that index.
ExpertsFactory = Callable[[int], Experts]


class LocalExperts:
    """All experts of one layer in this process, fused: gate_up (experts, 2 * expert width, width) with the gate's rows
    first, down (experts, width, expert width)."""

    def __init__(self, gate_up: Tensor, down: Tensor) -> None:
        self._gate_up, self._down = gate_up, down
        self._gate_up_of, self._down_of = gate_up.unbind(), down.unbind()
        self._ids = torch.arange(len(gate_up), device=gate_up.device)

    def __call__(self, hidden: Tensor, expert_ids: Tensor, weights: Tensor) -> Tensor:
        few = hidden.device.type == "cpu" and expert_ids.numel() <= FEW_PAIRS
        slots = self._one_by_one(hidden, expert_ids) if few else self._grouped(hidden, expert_ids)
        weighted = slots.view(*expert_ids.shape, -1) * weights.unsqueeze(-1)  # (rows, k, width)
        return weighted.sum(1)

    def _one_by_one(self, hidden: Tensor, expert_ids: Tensor) -> Tensor:
        experts, rows = expert_ids.flatten().tolist(), hidden.repeat_interleave(expert_ids.shape[1], 0)
        inner = gated(_each(rows, [self._gate_up_of[expert] for expert in experts]))
        return _each(inner, [self._down_of[expert] for expert in experts])

    def _grouped(self, hidden: Tensor, expert_ids: Tensor) -> Tensor:
        """Rows sorted by expert, one multiplication per expert that has rows, and back to (rows * k, width)."""
        by_expert, order = expert_ids.flatten().sort()
        stops = torch.searchsorted(by_expert, self._ids, right=True, out_int32=True)
        inner = gated(F.grouped_mm(hidden.index_select(0, order // expert_ids.shape[1]), self._gate_up.mT, offs=stops))
        outer = F.grouped_mm(inner, self._down.mT, offs=stops)
        return torch.empty_like(outer).index_copy_(0, order, outer)


def _each(rows: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Every row through its own matrix."""
    return torch.cat([F.linear(row, matrix) for row, matrix in zip(torch.split(rows, 1), matrices, strict=True)])


def local_experts(
    checkpoint: Checkpoint, prefix: str, config: DecoderConfig, *, dtype: torch.dtype, device: torch.device | str
) -> ExpertsFactory:
    """Reads a layer's experts from the checkpoint; prefix is that of the decoder, such as "thinker.model."."""

    def load(layer: int) -> Experts:
        place = f"{prefix}layers.{layer}.mlp.experts."
        gate_up, down = load_experts(checkpoint, place, 0, config.experts, dtype=dtype, device=device)
        expected = (config.experts, 2 * config.expert_width, config.width)
        if gate_up.shape != expected or down.shape != (config.experts, config.width, config.expert_width):
            raise CheckpointError(
                f"{checkpoint.directory}: {place} holds {tuple(gate_up.shape)} and {tuple(down.shape)}, but "
                f"config.json asks for {config.experts} of width {config.expert_width} over {config.width}. "
                "The weights and the configuration are of different models."
            )
        return LocalExperts(gate_up, down)

    return load


class MixtureOfExperts(nn.Module):
    """Routes every row to its top experts; with a shared expert (the Talker), adds that one behind its own gate."""

    def __init__(self, config: DecoderConfig, experts: Experts) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.experts, bias=False)
        self._experts, self._top_k, self._normalise = experts, config.experts_per_token, config.norm_top_k
        self._shares = config.shared_expert_width > 0
        if self._shares:
            self.shared_expert = SwiGLU(config.width, config.shared_expert_width)
            self.shared_expert_gate = nn.Linear(config.width, 1, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        weights, expert_ids = self.route(rows)
        routed = self._experts(rows, expert_ids, weights)
        if not self._shares:
            return routed
        shared: Tensor = self.shared_expert(rows)
        return routed + F.linear(rows, self.shared_expert_gate.weight).sigmoid() * shared

    def route(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(weights in the rows' type, expert ids), both (rows, k). The softmax over all experts is in float32."""
        scores = F.softmax(F.linear(rows, self.gate.weight), dim=-1, dtype=torch.float32)
        weights, expert_ids = scores.topk(self._top_k, dim=-1)
        if self._normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights.to(rows.dtype), expert_ids
