"""The loop of every stage that trains."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from rich.console import Console
from torch import nn

from .schedule import learning_rate, share_done
from .settings import TrainingSettings
from .state import Standing, load_state, save_state
from .step import Compute, Optimiser, Step

CONSOLE = Console(stderr=True, highlight=False)
Validate = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Kind:
    """One kind of batch, of one shape, and how often it is drawn beside the others, asked anew before each step."""

    compute: Compute
    weight: Callable[[], float]


class Trainer:
    """Trains `modules` on batches of several kinds until the budget is used; goes on from `state_file` if it is there."""

    def __init__(
        self,
        name: str,
        modules: Mapping[str, nn.Module],
        kinds: Sequence[Kind],
        part_names: Sequence[str],
        settings: TrainingSettings,
        state_file: Path,
    ) -> None:
        torch.manual_seed(settings.seed)
        self._name, self._modules, self._settings, self._state_file = name, modules, settings, state_file
        parameters = [parameter for module in modules.values() for parameter in module.parameters()]
        self._optimiser = Optimiser(parameters, settings)
        device = self._optimiser.parameters[0].device
        self._averages, self._part_names = torch.full((len(part_names),), torch.nan, device=device), part_names
        self._kinds = kinds
        self._steps = [Step(kind.compute, self._optimiser, self._averages) for kind in kinds]
        self._at = Standing(0, 0.0, Random(settings.seed))  # noqa: S311 - nothing here is secret

    def run(self, validate: Validate, between_reports: Callable[[], None] = lambda: None) -> None:
        """Reports, validates and saves on the way; `between_reports` may bring new data."""
        self._resume()
        done, before = self._share_done(), time.monotonic()
        saved_at, next_validation = self._at.seconds, done + 1 / self._settings.validations
        while done < 1:
            self._take_step(done)
            now = time.monotonic()
            self._at.seconds, before = self._at.seconds + now - before, now
            done = self._share_done()
            if self._at.steps % self._settings.report_every_steps == 0:
                self._report(done)
                between_reports()
            if done >= next_validation and done < 1:
                next_validation += 1 / self._settings.validations
                self._say(f"held out: {_listed(validate())}")
            if self._at.seconds - saved_at > self._settings.save_every_minutes * 60:
                self._save()
                saved_at = self._at.seconds
        self._save()
        self._say(f"done after {self._at.steps} steps; held out: {_listed(validate())}")

    def _share_done(self) -> float:
        return share_done(self._settings, self._at.steps, self._at.seconds)

    def _take_step(self, done: float) -> None:
        self._optimiser.set_rate(learning_rate(self._settings, self._at.steps, done))
        weights = [kind.weight() for kind in self._kinds]
        self._at.roll.choices(self._steps, weights)[0]()
        self._at.steps += 1

    def _resume(self) -> None:
        if self._state_file.exists():
            self._at = load_state(self._state_file, self._modules, self._optimiser, self._averages)
            self._say(f"goes on after {self._at.steps} steps, {self._at.seconds / 60:.1f} minutes")

    def _save(self) -> None:
        save_state(self._state_file, self._modules, self._optimiser, self._averages, self._at)

    def _report(self, done: float) -> None:
        parts = dict(zip(self._part_names, self._averages.tolist(), strict=True))
        pace = self._at.seconds / self._at.steps * 1000
        self._say(f"{done:4.0%}  step {self._at.steps}  {pace:.0f} ms a step  {_listed(parts)}")

    def _say(self, text: str) -> None:
        CONSOLE.print(f"[bold]{self._name}[/bold]  {text}")


def _listed(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
