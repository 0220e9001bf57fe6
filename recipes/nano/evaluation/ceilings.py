"""What a voice can at best be understood: the synthesiser that taught it, and the same speech through the codec."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import Qwen3OmniMoeForConditionalGeneration

from recipes.nano.codec.encode import SpeechCoder, encode
from recipes.nano.domain.voices import Integers
from recipes.nano.evaluation.speech import VOICES, Line, Samples, Speech
from recipes.nano.speech.synthesis import answer


def synthesised(lines: Sequence[Line]) -> list[Speech]:
    """As the voices were taught. Raises FileNotFoundError where flite is not installed."""
    return [_synthesised(line) for line in lines]


def through_codec(speeches: Sequence[Speech], codec: Path, checkpoint: Path) -> list[Speech]:
    """Encoded by `codec` (`encoder.*`, `quantiser.*`), and decoded as the checkpoint does."""
    codes = encode(SpeechCoder.load(codec), [_as_integers(speech.samples) for speech in speeches])
    decoder = CodeReader(checkpoint)
    return [replace(one, samples=decoder.samples(frames)) for one, frames in zip(speeches, codes, strict=True)]


class CodeReader:
    """The checkpoint's Code2Wav, as transformers computes it."""

    def __init__(self, checkpoint: Path) -> None:
        model = Qwen3OmniMoeForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
        self._code2wav = model.code2wav.eval()

    @torch.inference_mode()
    def samples(self, codes: npt.NDArray[np.integer]) -> Samples:
        """codes (frames, levels) of a whole speech"""
        if len(codes) == 0:
            return np.zeros(0, np.float32)
        wave: Samples = self._code2wav(torch.from_numpy(codes.astype(np.int64)).T[None]).reshape(-1).numpy()
        return wave


def _synthesised(line: Line) -> Speech:
    utterance = answer((line.seed, (line.text, VOICES[line.voice])))
    samples: Samples = utterance.samples.astype(np.float32) / np.float32(32768)
    return Speech(line, samples)


def _as_integers(samples: Samples) -> Integers:
    integers: Integers = np.round(samples * 32768).clip(-32768, 32767).astype(np.int16)
    return integers
