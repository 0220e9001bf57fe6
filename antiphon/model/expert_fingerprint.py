"""Tells the experts of one checkpoint from those of another, without reading them."""

from hashlib import blake2b
from typing import Final

import torch

from antiphon.model.config import DecoderConfig
from antiphon.model.weights import Checkpoint

# Of one expert of each layer: enough to tell models of one shape apart.
_VALUES: Final = 64
_DIGEST_BYTES: Final = 16


def expert_fingerprint(checkpoint: Checkpoint, prefix: str, config: DecoderConfig) -> str:
    """Of the experts' names and shapes and of some values of every layer: whoever computes them apart from the rest of
    the model must have the same. `prefix` is that of the decoder, such as "thinker.model."."""
    digest = blake2b(digest_size=_DIGEST_BYTES)
    shape = (config.layers, config.experts, config.experts_per_token, config.width, config.expert_width)
    digest.update(repr((prefix, shape)).encode())
    for name in checkpoint.names(f"{prefix}layers."):
        if ".mlp.experts." in name:
            digest.update(name.encode())
    for layer in range(config.layers):
        name = f"{prefix}layers.{layer}.mlp.experts.{layer % config.experts}.down_proj.weight"
        values = checkpoint.load([name], dtype=torch.float32)[name].flatten()[:_VALUES].contiguous()
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
