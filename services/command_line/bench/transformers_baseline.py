"""The same spoken questions through plain transformers: `generate` gives text and sound when all of it is done.

transformers' own Processor needs torchvision, so the inputs come from its WhisperFeatureExtractor and our prompts,
which equal the Processor's.
"""

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import soxr
import torch
import transformers
from numpy.typing import NDArray
from transformers import GenerationConfig, WhisperFeatureExtractor
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import _get_feat_extract_output_lengths

from antiphon.model.placement import Placement, placement
from antiphon.prompt.conversation import Audio, Conversation, Message
from antiphon.prompt.layout import MediaLayout
from antiphon.prompt.prompt import PromptBuilder
from services.command_line.bench.figures import RunFigures, TurnFigures, summarise
from services.command_line.bench.stock_model import stock_model
from services.command_line.bench.turn_client import Workload

HEARD_SAMPLES_PER_SECOND: Final = 16_000
SPOKEN_SAMPLES_PER_SECOND: Final = 24_000
_MOST_TOKENS: Final = 2048
_MOST_FRAMES: Final = 3750


@dataclass(slots=True)
class _Stopwatch:
    """Milliseconds spent in each part of one turn, the device's work included."""

    device: torch.device
    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.parts[part] = self.parts.get(part, 0.0) + (time.perf_counter() - started) * 1000


@dataclass(frozen=True, slots=True)
class AnswerBounds:
    """None takes the platform's own."""

    tokens: int | None
    frames: int | None


class TransformersBaseline:
    """One checkpoint on the device and in the type that the platform takes by default, its voice sampled likewise."""

    def __init__(self, checkpoint: Path, *, threads: int, bounds: AnswerBounds) -> None:
        torch.set_num_threads(threads)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._where: Placement = placement()
        self._model = stock_model(checkpoint, self._where)
        if (checkpoint / "generation_config.json").exists():
            self._model.generation_config = GenerationConfig.from_pretrained(checkpoint)
        self._features: Any = WhisperFeatureExtractor(
            feature_size=128, sampling_rate=HEARD_SAMPLES_PER_SECOND, hop_length=160, n_fft=400, chunk_length=300
        )
        self._prompts = PromptBuilder(checkpoint)
        self._sampling = _talker_sampling(checkpoint)
        self._bounds = bounds
        self._watch = _Stopwatch(self._where.device)
        self._frames = 0
        self._time_the_parts()

    def run(self, workload: Workload, turns: int) -> RunFigures:
        """One after the other, since `generate` serves one request."""
        # As for the platform, one turn before the clock starts.
        self._turn(workload, 0)
        started = time.perf_counter()
        done = [self._turn(workload, number) for number in range(turns)]
        return summarise("transformers", 1, done, failed=0, wall_seconds=time.perf_counter() - started)

    @torch.no_grad()
    def _turn(self, workload: Workload, number: int) -> TurnFigures:
        torch.manual_seed(number)
        sound = workload.questions.next(number)
        self._watch.parts.clear()
        started = time.perf_counter()
        with self._watch.timing("prepare"):
            inputs = self._inputs(sound)
        with warnings.catch_warnings(action="ignore"):
            ids, wave = self._model.generate(
                **inputs,
                speaker=(workload.voice or "ethan").capitalize(),
                thinker_do_sample=False,
                thinker_eos_token_id=self._prompts.special_tokens.im_end,
                thinker_max_new_tokens=self._bounds.tokens or _MOST_TOKENS,
                # The last one that it samples becomes no frame.
                talker_max_new_tokens=(self._bounds.frames or _MOST_FRAMES) + 1,
                **self._sampling,
            )
            samples = wave.cpu().numel()
        total_ms = (time.perf_counter() - started) * 1000
        return TurnFigures(
            first_text_ms=total_ms,
            first_audio_ms=total_ms,
            last_audio_ms=total_ms,
            audio_seconds=samples / SPOKEN_SAMPLES_PER_SECOND,
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
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "input_features": heard["input_features"].to(self._where.dtype),
            "feature_attention_mask": heard["attention_mask"],
        }
        return {name: tensor.to(self._where.device) for name, tensor in inputs.items()}

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


def _samples(sound: Path) -> NDArray[np.float32]:
    samples, rate = soundfile.read(sound, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, HEARD_SAMPLES_PER_SECOND))


def _talker_sampling(checkpoint: Path) -> dict[str, float]:
    """What the checkpoint recommends for its voice."""
    file = checkpoint / "generation_config.json"
    written = json.loads(file.read_text()) if file.exists() else {}
    return {name: value for name, value in written.items() if name.startswith("talker_")}
