"""Reads any experts of a decoder's layers, each by itself, as they are multiplied.

On a CPU an expert whose type on disk is the type computed in stays in the file, mapped: its pages are the file's,
shared by all processes of the host, and an expert that is never asked for takes no memory. Others are copied, gate and
up as one matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from antiphon.errors import CheckpointError
from antiphon.model.config import DecoderConfig
from antiphon.model.kernels.packed_experts import ExpertWeights
from antiphon.model.weights import Checkpoint

# Experts read in one go: each reading of mapped ones maps a file once, and each of copied ones holds so many twice.
EXPERTS_AT_ONCE: Final = 8
# On other addresses the product of a float32 matrix and a vector is summed in another order (measured).
_ALIGNED_BYTES: Final = 16
# Rows whose products are compared with the copies', of one expert.
_PROBED_ROWS: Final = (1, 2, 8, 33)


@dataclass(frozen=True, slots=True)
class ExpertReader:
    """prefix: of the decoder, such as "thinker.model."."""

    checkpoint: Checkpoint
    prefix: str
    config: DecoderConfig
    dtype: torch.dtype
    device: torch.device
    # Whether experts may stay where they are on disk.
    is_mapped: bool

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, prefix: str, config: DecoderConfig, dtype: torch.dtype, device: torch.device
    ) -> "ExpertReader":
        stored = checkpoint.stored_dtype(_names(prefix, 0, 0)[0])
        is_mapped = device.type == "cpu" and stored == dtype and parts_keep_bits(config, dtype)
        return cls(checkpoint, prefix, config, dtype, device, is_mapped)

    def read(self, layer: int, experts: Sequence[int]) -> dict[int, ExpertWeights]:
        """At most EXPERTS_AT_ONCE. Raises CheckpointError."""
        names = {expert: _names(self.prefix, layer, expert) for expert in experts}
        wanted = [name for each in names.values() for name in each]
        read = self.checkpoint.load(wanted, dtype=self.dtype, device=self.device)
        return {expert: self._weights(*((name, read.pop(name)) for name in each)) for expert, each in names.items()}

    def _weights(self, gate: tuple[str, Tensor], up: tuple[str, Tensor], down: tuple[str, Tensor]) -> ExpertWeights:
        width, expert_width = self.config.width, self.config.expert_width
        for (name, tensor), shape in ((gate, (expert_width, width)), (up, (expert_width, width))):
            self._require_shape(name, tensor, shape)
        self._require_shape(*down, (width, expert_width))
        parts = [gate[1], up[1], down[1]]
        if self.is_mapped and all(map(_is_aligned, parts)):
            return ExpertWeights((parts[0].T, parts[1].T), parts[2].T)
        copied = down[1].clone() if self.is_mapped else down[1]
        return ExpertWeights((torch.cat(parts[:2]).T,), copied.T)

    def _require_shape(self, name: str, tensor: Tensor, shape: tuple[int, int]) -> None:
        if tensor.shape != shape:
            raise CheckpointError(
                f"{self.checkpoint.directory}: {name} has shape {tuple(tensor.shape)}, but config.json asks for "
                f"{shape}. The weights and the configuration are of different models."
            )


@torch.inference_mode()
def parts_keep_bits(config: DecoderConfig, dtype: torch.dtype) -> bool:
    """Whether a gate and an up by themselves give the same bits here as one matrix of both. They do in every shape of
    published models; where they do not, for instance with an expert width of 48 in bfloat16, experts are copied."""
    generator = torch.Generator().manual_seed(0)
    fused = torch.randn(2 * config.expert_width, config.width, generator=generator).to(dtype)
    rows = torch.randn(sum(_PROBED_ROWS), config.width, generator=generator).to(dtype)
    halves = [half.clone().T for half in fused.chunk(2)]
    return all(
        torch.equal(torch.mm(few, fused.T), torch.cat([torch.mm(few, half) for half in halves], 1))
        for few in rows.split_with_sizes(list(_PROBED_ROWS))
    )


def _is_aligned(tensor: Tensor) -> bool:
    return tensor.dtype != torch.float32 or tensor.data_ptr() % _ALIGNED_BYTES == 0


def _names(prefix: str, layer: int, expert: int) -> tuple[str, ...]:
    place = f"{prefix}layers.{layer}.mlp.experts.{expert}."
    return tuple(f"{place}{part}_proj.weight" for part in ("gate", "up", "down"))
