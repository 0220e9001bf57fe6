"""Parts of transformers' model by one name each, whichever release lays them out, in memory and on disk."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recipes.nano.errors import RecipeError

# Before 5.23 the encoders lie beside the text model, which is `thinker.model` itself.
_ENCODER = re.compile(r"^thinker\.(audio_tower|visual)\.")
_TEXT_MODEL = re.compile(r"^thinker\.model\.(?!audio_tower\.|visual\.|language_model\.)")


@dataclass(frozen=True)
class ThinkerParts:
    text_model: nn.Module
    audio_tower: nn.Module
    vision_tower: nn.Module
    head: nn.Linear

    @classmethod
    def of(cls, thinker: nn.Module) -> "ThinkerParts":
        """thinker: `thinker` of the whole model."""
        inner = cast(nn.Module, thinker.model)
        is_nested = hasattr(inner, "language_model")
        encoders = inner if is_nested else thinker
        return cls(
            text_model=cast(nn.Module, inner.language_model) if is_nested else inner,
            audio_tower=cast(nn.Module, encoders.audio_tower),
            vision_tower=cast(nn.Module, encoders.visual),
            head=cast(nn.Linear, thinker.lm_head),
        )


def canonical_name(name: str) -> str:
    """The name that transformers 5.23 gives, in memory, to a parameter that an earlier release may call otherwise."""
    name = _ENCODER.sub(r"thinker.model.\1.", name)
    return _TEXT_MODEL.sub("thinker.model.language_model.", name)


def canonical_state(model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The parameters and lasting buffers of `model` whose canonical names begin with `prefix`; not copied."""
    named = ((canonical_name(name), tensor) for name, tensor in model.state_dict().items())
    return {name: tensor for name, tensor in named if name.startswith(prefix)}


def save_part(file: Path, model: nn.Module, prefix: str, others: Mapping[str, Tensor] | None = None) -> None:
    """Writes what of the whole `model` begins with `prefix`, such as "thinker.", and `others`; whole or not at all."""
    tensors = {**canonical_state(model, prefix), **(others or {})}
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, unfinished)
    unfinished.replace(file)


@torch.no_grad()
def load_part(file: Path, model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Copies the tensors of `file` that begin with `prefix` into the whole `model`, and returns the other ones.

    Raises RecipeError unless the file has exactly what the model needs, in its shapes.
    """
    if not file.exists():
        raise RecipeError(f"{file}: expected the tensors {prefix}*; it is not there. Run the stage that writes it.")
    tensors = load_file(file)
    wanted, found = canonical_state(model, prefix), {name for name in tensors if name.startswith(prefix)}
    _require_none(file, "does not have", wanted.keys() - found)
    _require_none(file, "has, and the model does not,", found - wanted.keys())
    _require_none(file, "has another shape of", (n for n in wanted if wanted[n].shape != tensors[n].shape))
    for name, tensor in wanted.items():
        tensor.copy_(tensors.pop(name))
    return tensors


def _require_none(file: Path, complaint: str, names: Iterable[str]) -> None:
    listed = sorted(names)
    if listed:
        more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
        raise RecipeError(
            f"{file}: {complaint} {', '.join(listed[:3])}{more}. It was written for another architecture or release; "
            "train this part anew."
        )
