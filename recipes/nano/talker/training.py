"""A run of the Talker's training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import Qwen3OmniMoeForConditionalGeneration

from recipes.nano.folders import WorkFolder
from recipes.nano.model.dense_experts import use_dense_experts
from recipes.nano.model.parts import ThinkerParts
from recipes.nano.training.step import Loss
from recipes.nano.training.trainer import Kind, Trainer

from .corpus import Corpus, Pool
from .losses import PART_NAMES, TalkerLosses
from .parts import TalkerParts
from .rows import OpeningIds, TalkerRows
from .settings import TalkerSettings
from .user_prompts import UserPrompt, UserPrompts, by_length

HELD_OUT_BATCH = 32


@dataclass(frozen=True)
class Speech:
    training: Corpus
    held_out: Corpus


def train(
    model: Qwen3OmniMoeForConditionalGeneration,
    opening: OpeningIds,
    prompts: Sequence[UserPrompt],
    speech: Speech,
    settings: TalkerSettings,
    folder: WorkFolder,
) -> None:
    """Until the budget is used, from where an interrupted run stood. The Thinker's embedding stays as it is."""
    losses = losses_of(model, opening, speech.training, settings)
    shorter, longer = by_length(prompts, speech.training.device)
    kinds = [
        Lesson(losses, speech.training, pool, users, share, settings).kind()
        for pool in speech.training.pools
        for users, share in ((shorter, 1 - settings.long_prompt_share), (longer, settings.long_prompt_share))
    ]
    modules, state = {"talker": model.talker}, folder.state("talker")
    trainer = Trainer("talker", modules, kinds, PART_NAMES, settings.training, state)
    trainer.run(partial(held_out_losses, losses, speech.held_out, shorter))


def losses_of(
    model: Qwen3OmniMoeForConditionalGeneration, opening: OpeningIds, corpus: Corpus, settings: TalkerSettings
) -> TalkerLosses:
    use_dense_experts(model.talker)
    parts = TalkerParts.of(model.talker)
    embedding = ThinkerParts.of(model.thinker).text_model.get_parameter("embed_tokens.weight").detach()
    rows = TalkerRows(parts, embedding, opening)
    return TalkerLosses(parts, rows, opening.codec_eos, corpus.residuals, settings)


@dataclass(frozen=True)
class Lesson:
    """Batches of one shape: speech of one pool after prompts of one length."""

    losses: TalkerLosses
    corpus: Corpus
    pool: Pool
    users: UserPrompts
    prompt_share: float
    settings: TalkerSettings

    def kind(self) -> Kind:
        return Kind(self.loss, self.weight)

    @property
    def batch_size(self) -> int:
        return max(2, self.settings.frames_per_batch // self.pool.frame_limit)

    def loss(self) -> Loss:
        return self.losses.training(self.corpus.draw(self.pool, self.batch_size), self.users)

    def weight(self) -> float:
        """So many batches that every utterance is seen as its weight says, in the share of the prompts before it."""
        return self.prompt_share * self.pool.weight / self.batch_size


def held_out_losses(losses: TalkerLosses, corpus: Corpus, users: UserPrompts) -> Mapping[str, float]:
    """After true codes; the mean over batches, each as heavy as its utterances are many."""
    longest = corpus.pools[-1].frame_limit
    numbers = torch.arange(corpus.size, device=corpus.device)
    measured = [
        losses.held_out(corpus.rows(some, longest), users) * len(some) for some in torch.split(numbers, HELD_OUT_BATCH)
    ]
    return dict(zip(PART_NAMES, (torch.stack(measured).sum(dim=0) / corpus.size).tolist(), strict=True))
