"""The loop of every stage that trains."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from rich.console import Console
from torch import nn

from .schedule import learning_rate, share_done
from .settings import TrainingSettings
from .state import Learner, Standing, load_state, save_state
from .step import Compute, Optimiser, Step

CONSOLE = Console(stderr=True, highlight=False)
Validate = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Kind:
    """One kind of batch, of one shape, and how often it is drawn beside the others, asked anew before each step."""

    compute: Compute
    weight: Callable[[], float]


class Trainer:
    """Trains `modules` on batches of several kinds until the budget is used; goes on from `state_file` if there is one.

    Seeds torch: steps draw from its global generators, which a captured step may contain.
    """

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
        self._name, self._part_names, self._settings, self._state_file = name, part_names, settings, state_file
        optimiser = Optimiser([one for module in modules.values() for one in module.parameters()], settings)
        averages = torch.full((len(part_names),), torch.nan, device=optimiser.device)
        self._learner = Learner(modules, optimiser, averages)
        self._kinds, self._steps = kinds, [Step(kind.compute, optimiser, averages) for kind in kinds]
        self._at = Standing(0, 0.0, Random(settings.seed))  # noqa: S311 - nothing here is secret

    def run(self, validate: Validate) -> None:
        """Reports, validates and saves on the way and at the end."""
        self._resume()
        before, saved_seconds, done = time.monotonic(), self._at.seconds, self._share_done()
        while done < 1:
            validations = self._validations(done)
            self._take_step(done)
            now = time.monotonic()
            self._at.seconds, before = self._at.seconds + now - before, now
            done = self._share_done()
            if self._at.steps % self._settings.report_every_steps == 0:
                self._report(done)
            if done < 1 and self._validations(done) > validations:
                self._say(f"held out: {self._measured(validate)}")
            if self._at.seconds - saved_seconds > self._settings.save_every_minutes * 60:
                self._save()
                saved_seconds = self._at.seconds
        self._save()
        self._say(f"done after {self._at.steps} steps; held out: {self._measured(validate)}")

    def _share_done(self) -> float:
        return share_done(self._settings, self._at.steps, self._at.seconds)

    def _validations(self, done: float) -> int:
        """How many belong before this share of the budget."""
        return int(done * self._settings.validations)

    def _take_step(self, done: float) -> None:
        self._learner.optimiser.set_rate(learning_rate(self._settings, self._at.steps, done))
        weights = [kind.weight() for kind in self._kinds]
        self._at.roll.choices(self._steps, weights)[0]()
        self._at.steps += 1

    def _resume(self) -> None:
        if self._state_file.exists():
            self._at = load_state(self._state_file, self._learner)
            self._say(f"goes on after {self._at.steps} steps, {self._at.seconds / 60:.1f} minutes")

    def _save(self) -> None:
        save_state(self._state_file, self._learner, self._at)

    def _measured(self, validate: Validate) -> str:
        with _own_random_state(self._settings.seed, self._learner.optimiser.device):
            return _listed(validate())

    def _report(self, done: float) -> None:
        parts = dict(zip(self._part_names, self._learner.averages.tolist(), strict=True))
        pace = self._at.seconds / self._at.steps * 1000
        self._say(f"{done:4.0%}  step {self._at.steps}  {pace:.0f} ms a step  {_listed(parts)}")

    def _say(self, text: str) -> None:
        CONSOLE.print(f"[bold]{self._name}[/bold]  {text}", soft_wrap=True)


@contextmanager
def _own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside, it is always the same, and training goes on as if it had not been."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _listed(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
