"""The decoder that Thinker and Talker share: layers of attention and experts over packed rows, then a norm."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from antiphon.errors import CheckpointError
from antiphon.model.attention import PagedKeyValues, StepAttention
from antiphon.model.config import DecoderConfig
from antiphon.model.experts import ExpertsFactory, MixtureOfExperts
from antiphon.model.kernels.arguments import CachePlace
from antiphon.model.kernels.choice import PLAIN, Experts, Kernels, kernels_for
from antiphon.model.layers import RMSNorm
from antiphon.model.rotary import Rotary, Rotation
from antiphon.model.weights import Checkpoint

# Called with a layer's index and its output; gives what the next layer reads.
AfterLayer = Callable[[int, Tensor], Tensor]


class SelfAttention(nn.Module):
    """Rows to turned queries, keys and values, and attended rows back; who attends to what is the caller's part."""

    def __init__(self, config: DecoderConfig, kernels: Kernels = PLAIN) -> None:
        super().__init__()
        self._kernels = kernels
        heads = config.heads + 2 * config.kv_heads
        self.qkv_proj = nn.Linear(config.width, heads * config.head_width, bias=False)
        # The scale of q_norm repeated for each query head, then that of k_norm for each key head.
        self.qk_norm = nn.Parameter(torch.ones(config.heads + config.kv_heads, config.head_width))
        self.o_proj = nn.Linear(config.heads * config.head_width, config.width, bias=False)
        self._head_width, self._eps = config.head_width, config.rms_eps

    def project(
        self, rows: Tensor, rotation: Rotation, place: CachePlace | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """rows (..., width) -> queries, keys, values (..., heads, head width). With a place, keys and values are kept
        there too."""
        heads = F.linear(rows, self.qkv_proj.weight).view(*rows.shape[:-1], -1, self._head_width)
        return self._kernels.turn_heads(heads, self.qk_norm, self._eps, rotation, place)

    def merge(self, attended: Tensor) -> Tensor:
        """attended (..., heads * head width) -> (..., width)"""
        return F.linear(attended, self.o_proj.weight)


class DecoderLayer(nn.Module):
    def __init__(self, config: DecoderConfig, mlp: nn.Module, kernels: Kernels = PLAIN) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.rms_eps, kernels)
        self.self_attn = SelfAttention(config, kernels)
        self.post_attention_layernorm = RMSNorm(config.width, config.rms_eps, kernels)
        self.mlp = mlp

    def forward(
        self,
        rows: Tensor,
        rotation: Rotation,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
        place: CachePlace | None = None,
    ) -> Tensor:
        """attend: queries, keys, values to attended rows. With a place, keys and values are kept there before."""
        heads = self.self_attn.project(self.input_layernorm(rows), rotation, place)
        rows, normalised = self.post_attention_layernorm.after_adding(rows, self.self_attn.merge(attend(*heads)))
        out: Tensor = rows + self.mlp(normalised)
        return out


class Decoder(nn.Module):
    """`layers` and `norm` as they lie under "thinker.model." and "talker.model."."""

    def __init__(
        self, config: DecoderConfig, experts: Sequence[Experts], rotary: Rotary, kernels: Kernels = PLAIN
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(config, MixtureOfExperts(config, each, kernels), kernels) for each in experts
        )
        self.norm = RMSNorm(config.width, config.rms_eps, kernels)
        self._rotary = rotary

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        prefix: str,
        config: DecoderConfig,
        experts: ExpertsFactory,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        kernels: Kernels | None = None,
    ) -> "Decoder":
        """Reads the trunk under `prefix`; its experts come from `experts`, so none is read here. kernels: unset, those
        of the device."""
        require_depth(checkpoint, prefix, config)
        parts = [experts(layer) for layer in range(config.layers)], Rotary(config, device)
        with torch.device("meta"):
            decoder = cls(config, *parts, kernels or kernels_for(device))
        norms = head_norms(checkpoint, prefix, config, dtype=dtype, device=device)
        checkpoint.fill(decoder, prefix, dtype=dtype, device=device, given=norms)
        return decoder

    def forward(
        self,
        rows: Tensor,
        positions: Tensor,
        batch: StepAttention,
        keys_values: PagedKeyValues,
        after_layer: AfterLayer | None = None,
    ) -> Tensor:
        """rows (rows, width), positions float32 (3, rows) -> (rows, width), normalised."""
        rotation = self._rotary(positions, rows.dtype)
        for index, layer in enumerate(self.layers):
            attend = partial(batch.attend_kept, layer=index, keys_values=keys_values)
            rows = layer(rows, rotation, attend, keys_values.place(index, batch.slots))
            if after_layer is not None:
                rows = after_layer(index, rows)
        normalised: Tensor = self.norm(rows)
        return normalised


def head_norms(
    checkpoint: Checkpoint, prefix: str, config: DecoderConfig, *, dtype: torch.dtype, device: torch.device | str
) -> dict[str, Tensor]:
    """Every layer's q_norm and k_norm, repeated per head, as SelfAttention keeps them."""
    norms: dict[str, Tensor] = {}
    for layer in range(config.layers):
        place = f"layers.{layer}.self_attn."
        q_norm, k_norm = (
            checkpoint.tensor(f"{prefix}{place}{name}.weight", (config.head_width,), dtype=dtype, device=device)
            for name in ("q_norm", "k_norm")
        )
        norms[f"{place}qk_norm"] = torch.cat((q_norm.expand(config.heads, -1), k_norm.expand(config.kv_heads, -1)))
    return norms


def require_depth(checkpoint: Checkpoint, prefix: str, config: DecoderConfig) -> None:
    beyond = checkpoint.names(f"{prefix}layers.{config.layers}.")
    if beyond:
        raise CheckpointError(
            f"{checkpoint.directory}: config.json asks for {config.layers} layers, but there is also {beyond[0]}. "
            "The weights and the configuration are of different models."
        )
