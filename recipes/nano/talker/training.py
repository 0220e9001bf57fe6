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
    talker, device = model.talker, next(model.parameters()).device
    use_dense_experts(talker)
    embedding = ThinkerParts.of(model.thinker).text_model.embed_tokens.weight.detach()
    rows = TalkerRows(talker, embedding, opening)
    losses = TalkerLosses(talker, rows, opening.codec_eos, speech.training.residuals, settings)
    users = by_length(prompts, device)
    kinds = [
        Kind(partial(_loss, losses, speech.training, pool, some, settings), partial(_weight, pool, share, settings))
        for pool in speech.training.pools
        for some, share in zip(users, (1 - settings.long_prompt_share, settings.long_prompt_share), strict=False)
    ]
    trainer = Trainer("talker", {"talker": talker}, kinds, PART_NAMES, settings.training, folder.state("talker"))
    trainer.run(partial(_held_out, losses, speech.held_out, users[0]))


def batch_size(pool: Pool, settings: TalkerSettings) -> int:
    return max(2, settings.frames_per_batch // pool.frame_limit)


def _weight(pool: Pool, prompt_share: float, settings: TalkerSettings) -> float:
    """So many batches that every utterance is seen as its weight says, in the share of the prompts before it."""
    return prompt_share * pool.weight / batch_size(pool, settings)


def _loss(losses: TalkerLosses, corpus: Corpus, pool: Pool, users: UserPrompts, settings: TalkerSettings) -> Loss:
    return losses.training(corpus.draw(pool, batch_size(pool, settings)), users)


def _held_out(losses: TalkerLosses, corpus: Corpus, users: UserPrompts) -> Mapping[str, float]:
    """Mean over the utterances, after their true codes."""
    longest = corpus.pools[-1].frame_limit
    rows = torch.arange(corpus.size, device=corpus.device).split(HELD_OUT_BATCH)
    measured = torch.stack([losses.held_out(corpus.rows(some, longest), users) * len(some) for some in rows])
    return dict(zip(PART_NAMES, (measured.sum(dim=0) / corpus.size).tolist(), strict=True))
