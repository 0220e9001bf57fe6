"""Where training stands, on disk: an interrupted stage goes on from there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from .step import Optimiser


@dataclass
class Standing:
    """Steps and seconds of training so far, and the dice that choose among the kinds of batches."""

    steps: int
    seconds: float
    roll: Random


def save_state(
    file: Path, modules: Mapping[str, nn.Module], optimiser: Optimiser, averages: Tensor, at: Standing
) -> None:
    """Written beside the file and renamed, so that a file is always whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimiser": optimiser.adam.state_dict(),
        "averages": averages,
        "steps": at.steps,
        "seconds": at.seconds,
        "roll": at.roll.getstate(),
        "random": torch.get_rng_state(),
        "random_on_gpu": torch.cuda.get_rng_state() if averages.device.type == "cuda" else None,
    }
    partial = file.with_suffix(".partial")
    torch.save(content, partial)
    partial.rename(file)


def load_state(file: Path, modules: Mapping[str, nn.Module], optimiser: Optimiser, averages: Tensor) -> Standing:
    """Raises FileNotFoundError where there is none. The file must be one's own: it is a pickle."""
    content = torch.load(file, map_location=averages.device, weights_only=False)
    for name, module in modules.items():
        module.load_state_dict(content["modules"][name])
    optimiser.adam.load_state_dict(content["optimiser"])
    averages.copy_(content["averages"])
    torch.set_rng_state(content["random"].cpu())
    if content["random_on_gpu"] is not None and averages.device.type == "cuda":
        torch.cuda.set_rng_state(content["random_on_gpu"].cpu())
    roll = Random()  # noqa: S311 - nothing here is secret
    roll.setstate(content["roll"])
    return Standing(content["steps"], content["seconds"], roll)
