"""The mixture of experts: the router, the seam behind which experts may live anywhere, and experts in this process."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.errors import CheckpointError
from antiphon.model.config import DecoderConfig
from antiphon.model.kernels.choice import PLAIN, Experts, Kernels, kernels_for
from antiphon.model.layers import SwiGLU
from antiphon.model.weights import Checkpoint, load_experts

# Gives the experts of the layer with that index.
ExpertsFactory = Callable[[int], Experts]


def local_experts(
    checkpoint: Checkpoint,
    prefix: str,
    config: DecoderConfig,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    kernels: Kernels | None = None,
) -> ExpertsFactory:
    """Reads a layer's experts from the checkpoint; prefix is that of the decoder, such as "thinker.model.". kernels:
    what they compute with; unset, those of the device."""
    chosen = kernels or kernels_for(device)

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
        experts = chosen.experts(gate_up, down)
        if layer == 0:
            _warm_up(experts, chosen, config, gate_up)
        return experts

    return load


@torch.inference_mode()
def _warm_up(experts: Experts, kernels: Kernels, config: DecoderConfig, like: Tensor) -> None:
    for pairs in kernels.warm_up_pairs_per_expert:
        rows = max(1, pairs * config.experts // config.experts_per_token)
        slots = like.new_zeros(rows, config.experts_per_token)
        experts(like.new_zeros(rows, config.width), slots.to(torch.int64), slots)


class MixtureOfExperts(nn.Module):
    """Routes every row to its top experts; with a shared expert (the Talker), adds that one behind its own gate."""

    def __init__(self, config: DecoderConfig, experts: Experts, kernels: Kernels = PLAIN) -> None:
        super().__init__()
        self._kernels = kernels
        self.gate = nn.Linear(config.width, config.experts, bias=False)
        self._experts, self._top_k, self._normalise = experts, config.experts_per_token, config.norm_top_k
        self._shares = config.shared_expert_width > 0
        if self._shares:
            self.shared_expert = SwiGLU(config.width, config.shared_expert_width, kernels)
            self.shared_expert_gate = nn.Linear(config.width, 1, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        weights, expert_ids = self.route(rows)
        routed = self._experts(rows, expert_ids, weights)
        if not self._shares:
            return routed
        shared: Tensor = self.shared_expert(rows)
        return self._kernels.add_behind_gate(routed, F.linear(rows, self.shared_expert_gate.weight), shared)

    def route(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(weights in the rows' type, expert ids), both (rows, k). The softmax over all experts is in float32."""
        return self._kernels.choose_experts(F.linear(rows, self.gate.weight), self._top_k, self._normalise)
