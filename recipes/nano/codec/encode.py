"""Speech to codes by a trained encoder and quantiser, a batch at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from recipes.nano.domain.voices import Integers
from recipes.nano.talker.codes import Codes

from .encoder import Encoder, EncoderShape
from .quantiser import Quantiser, QuantiserShape

# The encoder and the quantiser of models/nano's voice.
SHIPPED = Path(__file__).parents[1] / "codec_encoder.safetensors"
# Code2Wav keeps back this end of its last frame, which would wait there for the next.
LOOKAHEAD_SAMPLES = 555
# Silence after every speech: more than the encoder looks ahead, so that codes do not depend on what else is in a batch.
_SILENT_FRAMES = 5


class SpeechCoder(nn.Module):
    """From sound to codes; `Code2Wav` leads back."""

    def __init__(self, encoder: EncoderShape, quantiser: QuantiserShape) -> None:
        super().__init__()
        self.encoder = Encoder(encoder)
        self.quantiser = Quantiser(quantiser)

    @classmethod
    def load(cls, file: Path = SHIPPED, device: torch.device | str = "cpu") -> Self:
        """Reads `encoder.*` and `quantiser.*` as float32; the shapes are the default ones."""
        tensors = {name: tensor.float() for name, tensor in load_file(file).items() if not _of_code2wav(name)}
        coder = cls(EncoderShape(), QuantiserShape())
        coder.load_state_dict(tensors)
        return coder.to(device).eval()

    def forward(self, samples: Tensor) -> Tensor:
        """(batch, samples) in -1…1 -> codes (batch, frames, levels)"""
        return self.quantiser.encode(self.encoder(samples))

    @property
    def device(self) -> torch.device:
        return self.quantiser.codebooks.device


@torch.inference_mode()
def encode(coder: SpeechCoder, speech: Sequence[Integers], batch_size: int = 64) -> list[Codes]:
    """24 kHz int16 samples of any lengths -> codes (frames, levels) of each: Code2Wav gives all its samples back."""
    codes: dict[int, Codes] = {}
    by_length = sorted(range(len(speech)), key=lambda index: len(speech[index]))
    for start in range(0, len(by_length), batch_size):
        chosen = by_length[start : start + batch_size]
        batch = coder(_silence_after([speech[index] for index in chosen], coder)).cpu().numpy().astype(np.uint8)
        codes |= {index: row[: frames_of(len(speech[index]), coder)] for index, row in zip(chosen, batch, strict=True)}
    return [codes[index] for index in range(len(speech))]


def frames_of(sample_count: int, coder: SpeechCoder) -> int:
    """The fewest frames that sound as long as this many samples."""
    return -(-(sample_count + LOOKAHEAD_SAMPLES) // coder.encoder.shape.samples_per_frame)


def _silence_after(speech: Sequence[Integers], coder: SpeechCoder) -> Tensor:
    """(batch, samples): whole frames, silent ones last."""
    waves = pad_sequence([torch.from_numpy(one).to(coder.device) for one in speech], batch_first=True)
    frame_count = frames_of(waves.shape[1], coder) + _SILENT_FRAMES
    missing = frame_count * coder.encoder.shape.samples_per_frame - waves.shape[1]
    return nn.functional.pad(waves, (0, missing)).float() / 32768


def _of_code2wav(name: str) -> bool:
    return name.startswith("code2wav.")
