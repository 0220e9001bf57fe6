"""Tells the experts of one checkpoint from those of another, without reading them."""

from hashlib import blake2b
from typing import Final

import torch

from antiphon.model.config import DecoderConfig
from antiphon.model.weights import Checkpoint

# Of each matrix of one expert a layer: enough to tell models of one shape apart.
_VALUES: Final = 64
_DIGEST_BYTES: Final = 16
_MATRICES: Final = ("gate_proj", "up_proj", "down_proj")


def expert_fingerprint(checkpoint: Checkpoint, prefix: str, config: DecoderConfig) -> str:
    """Of the names of the experts' tensors, of the sizes in the config, and of the first values of gate, up and down of
    one expert a layer: whoever computes them apart from the rest of the model must have the same. `prefix` is that of
    the decoder, such as "thinker.model."."""
    digest = blake2b(digest_size=_DIGEST_BYTES)
    shape = (config.layers, config.experts, config.experts_per_token, config.width, config.expert_width)
    digest.update(repr((prefix, shape)).encode())
    for name in checkpoint.names(f"{prefix}layers."):
        if ".mlp.experts." in name:
            digest.update(name.encode())
    for layer in range(config.layers):
        for matrix in _MATRICES:
            name = f"{prefix}layers.{layer}.mlp.experts.{layer % config.experts}.{matrix}.weight"
            values = checkpoint.load([name], dtype=torch.float32)[name].flatten()[:_VALUES].contiguous()
            digest.update(values.numpy().tobytes())
    return digest.hexdigest()
