"""The same spoken questions through plain transformers: `generate` gives text and sound when all of it is done.

transformers' own Processor needs torchvision, so the inputs come from its WhisperFeatureExtractor and our prompts,
which equal the Processor's.
"""

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import soxr
import torch
import transformers
from transformers import Qwen3OmniMoeForConditionalGeneration, WhisperFeatureExtractor
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import _get_feat_extract_output_lengths

from antiphon.prompt.conversation import Audio, Conversation, Message
from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.prompt import PromptBuilder
from benchmarks.figures import RunFigures, TurnFigures, summarise

HEARD_SAMPLES_PER_SECOND: Final = 16_000
SPOKEN_SAMPLES_PER_SECOND: Final = 24_000
_MAX_NEW_TOKENS: Final = 2048
_MAX_FRAMES: Final = 3750


@dataclass(slots=True)
class _Stopwatch:
    """Milliseconds spent in each part of one turn."""

    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + (time.perf_counter() - started) * 1000


class TransformersBaseline:
    """One checkpoint in float32 on the CPU, sampling the voice as the platform does by default."""

    def __init__(self, checkpoint: Path, *, threads: int, voice: str | None) -> None:
        torch.set_num_threads(threads)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._model: Any = Qwen3OmniMoeForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self._features: Any = WhisperFeatureExtractor(
            feature_size=128, sampling_rate=HEARD_SAMPLES_PER_SECOND, hop_length=160, n_fft=400, chunk_length=300
        )
        self._prompts = PromptBuilder(checkpoint)
        self._voice = (voice or "ethan").capitalize()
        self._sampling = _talker_sampling(checkpoint)
        self._watch = _Stopwatch()
        self._frames = 0
        self._time_the_parts()

    def run(self, sounds: Sequence[Path], turns: int) -> RunFigures:
        """One after the other, since `generate` serves one request."""
        # As for the platform, one turn before the clock starts.
        self._turn(sounds[0], 0)
        started = time.perf_counter()
        done = [self._turn(sounds[number % len(sounds)], number) for number in range(turns)]
        return summarise("transformers", 1, done, failed=0, wall_seconds=time.perf_counter() - started)

    @torch.no_grad()
    def _turn(self, sound: Path, seed: int) -> TurnFigures:
        torch.manual_seed(seed)
        self._watch.parts.clear()
        started = time.perf_counter()
        with self._watch.timing("prepare"):
            inputs = self._inputs(sound)
        with warnings.catch_warnings(action="ignore"):
            ids, wave = self._model.generate(
                **inputs,
                speaker=self._voice,
                thinker_do_sample=False,
                thinker_eos_token_id=self._prompts.special_tokens.im_end,
                thinker_max_new_tokens=_MAX_NEW_TOKENS,
                talker_max_new_tokens=_MAX_FRAMES,
                **self._sampling,
            )
        total_ms = (time.perf_counter() - started) * 1000
        return TurnFigures(
            first_text_ms=total_ms,
            first_audio_ms=total_ms,
            last_audio_ms=total_ms,
            audio_seconds=wave.numel() / SPOKEN_SAMPLES_PER_SECOND,
            text_tokens=ids.shape[1] - inputs["input_ids"].shape[1],
            frames=self._frames,
            first_packet_ms=_gapless(self._watch.parts, total_ms),
        )

    def _inputs(self, sound: Path) -> dict[str, torch.Tensor]:
        heard = self._features(
            [_samples(sound)],
            sampling_rate=HEARD_SAMPLES_PER_SECOND,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        tokens = int(_get_feat_extract_output_lengths(heard["attention_mask"].sum()))
        question = Conversation((Message("user", (Audio(),)),))
        prompt = self._prompts.build(question, [MediaLayout(0, "audio", tokens)])
        ids = torch.tensor([prompt.thinker.token_ids])
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "input_features": heard["input_features"],
            "feature_attention_mask": heard["attention_mask"],
        }

    def _time_the_parts(self) -> None:
        model = self._model
        for owner, name, part in (
            (model.thinker.model.audio_tower, "forward", "encoders"),
            (model.thinker, "generate", "thinker"),
            (model.talker, "generate", "talker"),
            (model.code2wav, "chunked_decode", "codec"),
        ):
            setattr(owner, name, self._timed(getattr(owner, name), part))

    def _timed(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            if part == "codec":
                self._frames = arguments[0].shape[-1]
            with self._watch.timing(part):
                return call(*arguments, **options)

        return timed


def _gapless(parts: dict[str, float], total_ms: float) -> dict[str, float]:
    """The encoders run inside the Thinker's generate; what is between the parts goes to the last."""
    told = {**parts, "thinker": parts["thinker"] - parts.get("encoders", 0.0)}
    return {**told, "emit": total_ms - sum(told.values())}


def _samples(sound: Path) -> np.ndarray:
    samples, rate = soundfile.read(sound, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, HEARD_SAMPLES_PER_SECOND))


def _talker_sampling(checkpoint: Path) -> dict[str, float]:
    """What the checkpoint recommends for its voice."""
    file = checkpoint / "generation_config.json"
    written = json.loads(file.read_text()) if file.exists() else {}
    return {name: value for name, value in written.items() if name.startswith("talker_")}
