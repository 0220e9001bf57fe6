"""Conversations of the recipe as transformers takes them: its own tokenizer, chat template and feature extractor."""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer

from recipes.nano.domain import films, pictures
from recipes.nano.domain.conversations import Conversation, Film, Part, Picture, Recording, Sound, Text
from recipes.nano.domain.voices import Integers
from recipes.nano.thinker.layout import media_of
from recipes.nano.thinker.media import Audible
from tests.reference import reference_inputs as told

_KINDS = {Recording: "audio", Sound: "audio", Picture: "image", Film: "video"}


class TransformersInputs:
    """The whole conversation, its last answer too, for one forward of transformers' Thinker."""

    def __init__(self, checkpoint: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self.tokenizer.chat_template = (checkpoint / "chat_template.jinja").read_text()
        self._reference = told.ReferenceInputs(checkpoint)

    def text(self, conversation: Conversation) -> str:
        """As the template writes it, one placeholder a medium; then what is to be answered."""
        messages: list[dict[str, object]] = []
        if conversation.system:
            messages.append({"role": "system", "content": conversation.system})
        for turn in conversation.turns:
            messages.append({"role": "user", "content": [_content(part) for part in turn.parts]})
            messages.append({"role": "assistant", "content": turn.answer})
        thought = conversation.thought
        thinking = {} if thought is None else {"enable_thinking": bool(thought)}
        prompt: str = self.tokenizer.apply_chat_template(
            messages[:-1], tokenize=False, add_generation_prompt=True, **thinking
        )
        aloud = f"{thought}\n</think>\n\n" if thought else ""
        return f"{prompt}{aloud}{conversation.turns[-1].answer}<|im_end|>"

    def ids(self, conversation: Conversation) -> list[int]:
        return list(self.tokenizer(self.text(conversation))["input_ids"])

    def inputs(self, conversation: Conversation, heard: Mapping[Audible, Integers]) -> dict[str, Tensor]:
        """Ids with every placeholder expanded, and the media's tensors."""
        media = [_medium(part, heard) for part in media_of(conversation)]
        inputs = self._reference.build([told.ReferenceMessage("user", media)])
        frame_counts = inputs["feature_attention_mask"].sum(-1).tolist() if "feature_attention_mask" in inputs else []
        ids = list(self._reference._expanded(self.ids(conversation), media, iter(frame_counts)))
        inputs["input_ids"] = torch.tensor([ids])
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return inputs


def _content(part: Part) -> dict[str, str]:
    return {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": _KINDS[type(part)]}


def _medium(part: Part, heard: Mapping[Audible, Integers]) -> told.Part:
    match part:
        case Recording() | Sound():
            return told.Sound(heard[part].astype(np.float32) / 32768)
        case Picture(scene, seed):
            return told.Picture(np.array(pictures.draw(_dice(seed), scene)))
        case Film(motion, seed):
            return told.Film(np.stack([np.asarray(frame) for frame in films.draw(_dice(seed), motion)]))
        case Text(text):
            return text


def _dice(seed: int) -> Random:
    return Random(seed)  # noqa: S311 - nothing here is secret
