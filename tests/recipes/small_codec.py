"""A codec that differs from nano's only in how wide Code2Wav's convolutions are, so that it trains in moments."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import Qwen3OmniMoeCode2Wav

from recipes.nano.codec.codec import Codec
from recipes.nano.domain.voices import Integers
from recipes.nano.model.architecture import config_for
from recipes.nano.speech.store import Utterance


def small_code2wav(nano: Path) -> Any:
    config = config_for(nano).code2wav_config
    config.decoder_dim = 32
    return Qwen3OmniMoeCode2Wav._from_config(config).eval()


def small_codec(nano: Path, seed: int = 0) -> Codec:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Codec(small_code2wav(nano))


def hums(count: int, seconds: float = 0.5) -> list[Utterance]:
    """Each a tone of its own, and said to be words of the dictionary."""
    return [Utterance("good morning", "slt", hum(100.0 + 60.0 * number, seconds)) for number in range(count)]


def hum(frequency_hz: float, seconds: float) -> Integers:
    times = np.arange(int(seconds * 24_000)) / 24_000
    wave: Integers = (np.sin(2 * np.pi * frequency_hz * times) * 8000).astype(np.int16)
    return wave
