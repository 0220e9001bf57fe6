"""What a voice can at best be understood: the synthesiser that taught it, and the same speech through the codec."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from antiphon.model.code2wav import Code2Wav
from antiphon.model.config import OmniConfig
from antiphon.model.weights import Checkpoint
from recipes.nano.codec.encode import SpeechCoder, encode
from recipes.nano.domain.voices import Integers
from recipes.nano.evaluation.held_out import VOICES
from recipes.nano.evaluation.speech import Line, Samples, Speech
from recipes.nano.speech.synthesis import ANSWERS_RATE_HZ, answer


def synthesised(lines: Sequence[Line]) -> list[Speech]:
    """As the voices were taught. Raises FileNotFoundError where flite is not installed."""
    return [_synthesised(line) for line in lines]


def through_codec(speeches: Sequence[Speech], codec: Path, checkpoint: Path) -> list[Speech]:
    """Encoded by `codec` (`encoder.*`, `quantiser.*`), and decoded by the checkpoint's own Code2Wav."""
    codes = encode(SpeechCoder.load(codec), [_as_integers(speech.samples) for speech in speeches])
    decoder = load_decoder(checkpoint)
    decoded = [decoder.decode(torch.from_numpy(frames.astype(np.int64))).numpy() for frames in codes]
    return [replace(speech, samples=samples) for speech, samples in zip(speeches, decoded, strict=True)]


def load_decoder(checkpoint: Path) -> Code2Wav:
    return Code2Wav.load(Checkpoint(checkpoint), OmniConfig.from_checkpoint(checkpoint), dtype=torch.float32)


def _synthesised(line: Line) -> Speech:
    utterance = answer((line.seed, (line.text, VOICES[line.voice])))
    samples: Samples = utterance.samples.astype(np.float32) / np.float32(32768)
    return Speech(line, samples, ANSWERS_RATE_HZ)


def _as_integers(samples: Samples) -> Integers:
    integers: Integers = np.round(samples * 32768).clip(-32768, 32767).astype(np.int16)
    return integers
