"""What the Talker's tests share: prompts that it hears, and coded speech that follows a rule."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from recipes.nano.domain.conversations import Conversation
from recipes.nano.domain.sentences import AnswerKind
from recipes.nano.model.architecture import ACCEPT_HIDDEN_LAYER
from recipes.nano.model.parts import ThinkerParts
from recipes.nano.talker.codes import Coded, Codes
from recipes.nano.talker.corpus import Legend
from recipes.nano.talker.listening import Listener
from recipes.nano.talker.rows import OpeningIds
from recipes.nano.talker.settings import TalkerSettings
from recipes.nano.talker.stage import SPEAKERS, opening_ids
from recipes.nano.talker.user_prompts import UserPrompt
from recipes.nano.thinker.reading import Reader
from recipes.nano.tokenizer.special_tokens import SpecialTokens
from tests.recipes.thinker_conversations import prepared

TEXTS = ("Two plus two is four.", "Red.", "I see a blue square and a red circle.", "Good morning!", "Hello there, Tom.")


def settings(**changes: object) -> TalkerSettings:
    small = {"training": {"steps": 1, "learning_rate": 1e-3}, "frame_limits": (12, 20), "frames_per_batch": 48}
    return TalkerSettings.model_validate(small | changes)


def tokenizer(checkpoint: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(checkpoint)


def opening(model: Any, checkpoint: Path) -> OpeningIds:
    return opening_ids(model, tokenizer(checkpoint), SpecialTokens.from_folder(checkpoint))


def legend(checkpoint: Path) -> Legend:
    return Legend(tokenizer(checkpoint).encode, kind_of, tuple(SPEAKERS))


def kind_of(text: str) -> AnswerKind:
    return "everyday" if text == "Good morning!" else "phrase" if text == "Red." else "composed"


def coded(texts: Sequence[str] = TEXTS) -> list[Coded]:
    """Said by the three voices in turn, in codes that count up: every one follows from those before it."""
    voices, lengths = list(SPEAKERS), (8, 12, 20, 15, 11)
    return [Coded(text, voices[n % 3], _counted(lengths[n % 5], 40 * n)) for n, text in enumerate(texts)]


def _counted(frames: int, start: int) -> Codes:
    codes = start + 3 * np.arange(frames)[:, None] + 7 * np.arange(16)
    return (codes % 256).astype(np.uint8)


def heard(model: Any, checkpoint: Path, questions: Path, conversations: Sequence[Conversation]) -> list[UserPrompt]:
    """One prompt a conversation, in their order."""
    return [prompt for one in conversations for prompt in _heard_alone(model, checkpoint, questions, one)]


def _heard_alone(model: Any, checkpoint: Path, questions: Path, conversation: Conversation) -> Iterator[UserPrompt]:
    examples = prepared([conversation], questions, checkpoint)
    reader = Reader(ThinkerParts.of(model.thinker), examples.banks, examples.longest_sound_seconds)
    listener = Listener(reader, SpecialTokens.from_folder(checkpoint), ACCEPT_HIDDEN_LAYER, most_tokens=144)
    return listener.prompts(examples, {conversation.of_class: torch.tensor([0])})
