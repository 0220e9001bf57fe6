"""Where the code predictor keeps keys and values of some frames. Its views are made once: a frame is fifteen steps of
every layer, and on a CPU making views takes longer than attending to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one layer, for the rows that come at one place of every frame."""

    # (keys and values, frames, new places, kv heads, head width): what is to be written.
    new: Tensor
    # Each (frames, kv heads, places so far and new ones, head width).
    keys: Tensor
    values: Tensor

    @classmethod
    def of(cls, layer: Tensor, first: int, stop: int) -> "Kept":
        """layer (keys and values, frames, kv heads, places, head width); rows come at places [first, stop)."""
        keys, values = layer[:, :, :, :stop].unbind()
        return cls(layer[:, :, :, first:stop].transpose(2, 3), keys, values)


@dataclass(frozen=True, slots=True)
class FrameRoom:
    # For the first two places, which come together, then for one place after the other; of each layer.
    steps: Sequence[Sequence[Kept]]

    @classmethod
    def of(cls, keys_values: Tensor) -> "FrameRoom":
        """keys_values (layers, keys and values, frames, kv heads, places, head width)"""
        layers, places = keys_values.unbind(), keys_values.shape[4]
        spans = [(0, 2), *((place, place + 1) for place in range(2, places))]
        return cls([[Kept.of(layer, *span) for layer in layers] for span in spans])
