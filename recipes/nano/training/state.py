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


@dataclass(frozen=True)
class Learner:
    """What steps change: modules by name, what the optimiser remembers, and the averages of the losses' parts."""

    modules: Mapping[str, nn.Module]
    optimiser: Optimiser
    averages: Tensor

    @property
    def on_gpu(self) -> bool:
        return self.averages.device.type == "cuda"


def save_state(file: Path, learner: Learner, at: Standing) -> None:
    """Written beside the file and renamed, so that a file is always whole. Holds torch's random states, too."""
    content = {
        "modules": {name: module.state_dict() for name, module in learner.modules.items()},
        "optimiser": learner.optimiser.adam.state_dict(),
        "averages": learner.averages,
        "steps": at.steps,
        "seconds": at.seconds,
        "roll": at.roll.getstate(),
        "random": torch.get_rng_state(),
        "random_on_gpu": torch.cuda.get_rng_state() if learner.on_gpu else None,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".partial")
    torch.save(content, unfinished)
    unfinished.replace(file)


def load_state(file: Path, learner: Learner) -> Standing:
    """Puts everything back as it was saved. Raises FileNotFoundError where there is no such file."""
    content = torch.load(file, map_location=learner.averages.device, weights_only=True)
    for name, module in learner.modules.items():
        module.load_state_dict(content["modules"][name])
    learner.optimiser.adam.load_state_dict(content["optimiser"])
    learner.averages.copy_(content["averages"])
    torch.set_rng_state(content["random"].cpu())
    if content["random_on_gpu"] is not None and learner.on_gpu:
        torch.cuda.set_rng_state(content["random_on_gpu"].cpu())
    roll = Random()  # noqa: S311 - nothing here is secret
    roll.setstate(content["roll"])
    return Standing(content["steps"], content["seconds"], roll)
