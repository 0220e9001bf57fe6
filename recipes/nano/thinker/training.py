"""What one step of the Thinker's training computes, and how a run of it goes."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recipes.nano.domain.conversations import Class
from recipes.nano.errors import RecipeError
from recipes.nano.folders import WorkFolder
from recipes.nano.model.dense_experts import RouterBalance, use_dense_experts
from recipes.nano.model.parts import ThinkerParts
from recipes.nano.thinker.examples import Examples
from recipes.nano.thinker.losses import Transcriber, answer_loss
from recipes.nano.thinker.reading import Reader
from recipes.nano.thinker.settings import ThinkerSettings
from recipes.nano.thinker.teacher_forcing import scores
from recipes.nano.training.step import Loss
from recipes.nano.training.trainer import Kind, Trainer

PART_NAMES = ("answers", "transcripts", "router balance")


@dataclass(frozen=True)
class Splits:
    training: Examples
    held_out: Examples


class Lesson:
    """A balanced batch, drawn anew at every call, and its loss."""

    def __init__(
        self, thinker: nn.Module, transcriber: Transcriber, examples: Examples, settings: ThinkerSettings
    ) -> None:
        """Raises RecipeError where a class that `settings.batch` asks for has no conversations."""
        self._transcriber, self._examples, self._settings = transcriber, examples, settings
        self._reader = Reader(ThinkerParts.of(thinker), examples.banks, settings.longest_sound_seconds)
        self._balance = RouterBalance(thinker)
        for of_class in settings.batch:
            if not len(examples.classes[of_class]):
                raise RecipeError(
                    f"thinker.batch asks for conversations of the class {of_class}, and none is left of those drawn; "
                    "raise corpus.training or take the class out."
                )

    def __call__(self) -> Loss:
        batch = self._examples.batch(self._drawn())
        reading = self._reader.read(batch, augmentation=self._settings.augmentation)
        answers = answer_loss(reading.logits, batch)
        transcripts = torch.zeros_like(answers)
        if reading.heard is not None:
            transcripts = self._transcriber.loss(reading.heard, batch.sounds, self._examples.banks.sounds)
        balance, weights = self._balance.take(), self._settings.loss
        total = answers + weights.transcript * transcripts + weights.router_balance * balance
        return Loss(total, torch.stack((answers, transcripts, balance)))

    def _drawn(self) -> Mapping[Class, Tensor]:
        """By torch's global generator, which a CUDA graph may contain."""
        rows = self._examples.classes
        return {
            of_class: rows[of_class][torch.randint(len(rows[of_class]), (count,), device=rows[of_class].device)]
            for of_class, count in self._settings.batch.items()
        }


def train(
    thinker: nn.Module, transcriber: Transcriber, splits: Splits, settings: ThinkerSettings, folder: WorkFolder
) -> None:
    """Until the budget is used, from where an interrupted run stood."""
    use_dense_experts(thinker)
    lesson = Lesson(thinker, transcriber, splits.training, settings)
    examiner = Reader(ThinkerParts.of(thinker), splits.held_out.banks, settings.longest_sound_seconds)

    def validate() -> Mapping[str, float]:
        return {of_class: score.share for of_class, score in scores(examiner, splits.held_out).items()}

    modules = {"thinker": thinker, "transcriber": transcriber}
    kinds = [Kind(lesson, lambda: 1.0)]
    Trainer("thinker", modules, kinds, PART_NAMES, settings.training, folder.state("thinker")).run(validate)
