"""A checkpoint answers by transformers alone: float32, its own `generate`, nothing of Antiphon's."""

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import Qwen3OmniMoeForConditionalGeneration

from recipes.nano.evaluation.questions import Question
from recipes.nano.evaluation.speech import FRAME_SAMPLES, MOST_FRAMES, Speech, SpokenQuestion
from recipes.nano.evaluation.transformers_inputs import TransformersInputs

# transformers reads none of these from generation_config.json by itself.
TALKER_OPTIONS: Final = (
    "talker_do_sample",
    "talker_temperature",
    "talker_top_k",
    "talker_top_p",
    "talker_repetition_penalty",
)


class Transformers:
    def __init__(self, checkpoint: Path, most_tokens: int = 64) -> None:
        self._model: Any = Qwen3OmniMoeForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        # transformers 5.23 forgets it, and then cannot place audio beside vision for the Talker.
        self._model.talker.config.audio_config = self._model.config.thinker_config.audio_config
        self._inputs = TransformersInputs(checkpoint)
        self._thinker_options = {
            "thinker_do_sample": False,
            "thinker_max_new_tokens": most_tokens,
            "thinker_eos_token_id": self._model.config.im_end_token_id,
        }
        wanted = ((name, getattr(self._model.generation_config, name, None)) for name in TALKER_OPTIONS)
        self._talker_options = {name: value for name, value in wanted if value is not None}

    @torch.inference_mode()
    def write(self, question: Question) -> str:
        """The Thinker greedy."""
        inputs = self._inputs.of(question)
        ids = self._model.generate(**inputs, **self._thinker_options, return_audio=False)
        return self._text(ids, inputs["input_ids"].shape[1])

    @torch.inference_mode()
    def speak(self, asked: SpokenQuestion, most_frames: int = MOST_FRAMES) -> Speech:
        """The Thinker greedy, the Talker as the checkpoint's generation_config.json says.

        An answer without a word, or a speech without a frame, is more than transformers can speak: that is silence.
        """
        inputs = self._inputs.of(asked.question)
        torch.manual_seed(asked.seed)
        with warnings.catch_warnings(action="ignore"):
            try:
                ids, wave = self._model.generate(
                    **inputs,
                    **self._thinker_options,
                    **self._talker_options,
                    talker_max_new_tokens=most_frames + 1,  # it counts the end as one
                    speaker=asked.voice,
                )
            except RuntimeError:
                return Speech(asked.line(self.write(asked.question)), np.zeros(0, np.float32))
        samples = wave.reshape(-1).numpy()
        transcript = self._text(ids, inputs["input_ids"].shape[1])
        return Speech(asked.line(transcript), samples, ended=len(samples) <= (most_frames - 1) * FRAME_SAMPLES)

    def _text(self, ids: torch.Tensor, prompt_tokens: int) -> str:
        return str(self._inputs.tokenizer.decode(ids[0, prompt_tokens:], skip_special_tokens=True))
