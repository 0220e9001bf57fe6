"""Random weights in the place of a checkpoint's: every tensor that config.json implies, drawn where it will be used.

For measuring a model of any size without its weights. A tensor depends on the seed and its own name only, so that any
order of reading, and any two readers on devices of one kind, get the same values.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from antiphon.errors import CheckpointError
from antiphon.model.config import OmniConfig
from antiphon.model.tensor_layout import tensor_shapes

# Holds {"seed": number}, beside config.json.
RANDOM_WEIGHTS: Final = "random_weights.json"

# (mean, deviation) of vectors by the last part of their names; other vectors are the scales of norms.
_VECTORS: Final[Mapping[str, tuple[float, float]]] = {
    "alpha": (0.0, 0.3),
    "beta": (0.0, 0.3),
    "scale": (0.5, 0.2),
    "gamma": (0.5, 0.2),
    "bias": (0.0, 0.1),
}
_NORM_SCALE: Final = (1.0, 0.1)
_TABLES: Final = ("embed_tokens", "codec_embedding", "code_embedding", "pos_embed")
# Above 1, since activations shrink what comes in; the codec's residual units would add up to noise.
_GAIN: Final = 1.2
_RESIDUAL_GAIN: Final = 0.4
_RESIDUAL_UNITS: Final = (".conv1.conv.", ".conv2.conv.")


class RandomTensors:
    def __init__(self, directory: Path) -> None:
        """Raises CheckpointError when `directory` does not tell a seed or has no valid config.json."""
        self._seed = _seed(directory / RANDOM_WEIGHTS)
        config = OmniConfig.from_checkpoint(directory)
        self._shapes = tensor_shapes(config)
        # By head: the row of its end. At zero it is neither the likeliest nor among the top 50, so that no answer ends
        # by chance and all have the length that they are bound to.
        self._end_rows = {"thinker.lm_head.weight": config.im_end_id}
        if config.talker is not None:
            self._end_rows["talker.codec_head.weight"] = config.talker.codec_eos_id

    def names(self) -> Collection[str]:
        return self._shapes.keys()

    def read(self, names: Sequence[str], *, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """Drawn in `dtype` on `device`, without a copy elsewhere."""
        generator = None if device.type == "meta" else torch.Generator(device)
        return {name: self._draw(name, dtype, device, generator) for name in names}

    def stored_dtype(self, name: str) -> torch.dtype | None:  # noqa: ARG002
        return None

    def _draw(self, name: str, dtype: torch.dtype, device: torch.device, generator: torch.Generator | None) -> Tensor:
        shape = self._shapes[name]
        tensor = torch.empty(shape, dtype=dtype, device=device)
        if generator is None:
            return tensor
        mean, deviation = _distribution(name, shape)
        tensor.normal_(mean, deviation, generator=generator.manual_seed(_tensor_seed(self._seed, name)))
        if name in self._end_rows:
            tensor[self._end_rows[name]] = 0
        return tensor


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Such that a random model's activations stay of one size through all its layers, and its router chooses."""
    if len(shape) == 1:
        return _VECTORS.get(name.rpartition(".")[2], _NORM_SCALE)
    if any(table in name for table in _TABLES):
        return 0.0, 1.0
    gain = _RESIDUAL_GAIN if any(unit in name for unit in _RESIDUAL_UNITS) else _GAIN
    return 0.0, gain / math.sqrt(math.prod(shape[1:]))


def _tensor_seed(seed: int, name: str) -> int:
    """63 bits, the same in every process."""
    return int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=8).digest()) >> 1


def _seed(file: Path) -> int:
    try:
        seed = json.loads(file.read_text())["seed"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f'{file}: expected {{"seed": number}}; {error!r}') from error
    if type(seed) is not int:
        raise CheckpointError(f"{file}: expected the seed to be a whole number; found {seed!r}.")
    return seed
