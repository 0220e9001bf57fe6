"""How sentences sound, as phones of the CMU dictionary that comes with pocketsphinx, and a head that reads phones."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.nano.training.ctc import ctc_loss

BLANK = 0
PHONES = (
    *("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"),
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG"),
    *("P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH"),
)
_ID_OF = {phone: index for index, phone in enumerate(PHONES, start=BLANK + 1)}
# Speech has up to fifteen phones a second, and the codec 12.5 frames.
_READINGS_A_FRAME = 2

_FIRST_LOSS, _FOLLOW = 10.0, 0.02
# By phone. What the ear alone puts into the first codes can be read at 2.5.
_NO_TRUST_LOSS = 3.2

Spellings = Mapping[str, tuple[int, ...]]


def spellings() -> Spellings:
    """Every word of the dictionary, in lower case, as ids of phones; of several pronunciations the first."""
    import pocketsphinx

    dictionary = Path(pocketsphinx.get_model_path()) / "en-us" / "cmudict-en-us.dict"
    lines = (line.split() for line in dictionary.read_text().splitlines())
    return {word: tuple(_ID_OF[phone] for phone in sounds) for word, *sounds in lines if "(" not in word}


def phones_of(text: str, known: Spellings) -> tuple[int, ...] | None:
    """None where a word is not in the dictionary."""
    words = re.sub(r"[^a-z' ]", " ", text.lower()).split()
    if not all(word in known for word in words):
        return None
    return tuple(phone for word in words for phone in known[word])


class PhoneReader(nn.Module):
    """Reads phones from vectors without context: they can be read only if each vector tells its own.

    `recent_loss` is a moving average of its losses.
    """

    recent_loss: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("recent_loss", torch.tensor(_FIRST_LOSS))
        self.scores = nn.Linear(width, _READINGS_A_FRAME * (len(PHONES) + 1))

    def forward(self, vectors: Tensor) -> Tensor:
        """(batch, frames, width) -> log-probabilities (batch, readings, phones and blank)"""
        scores = cast(Tensor, self.scores(vectors))
        return F.log_softmax(scores.view(len(vectors), -1, len(PHONES) + 1).float(), dim=-1)

    def loss(self, vectors: Tensor, frames: Tensor, phones: Tensor, phone_counts: Tensor) -> Tensor:
        """Mean over the batch of the negative log-likelihood by phone.

        vectors (batch, frames, width), of which `frames` (batch,) count; phones (batch, longest), of which
        `phone_counts` (batch,) count.
        """
        losses = ctc_loss(self(vectors), phones, frames * _READINGS_A_FRAME, phone_counts, BLANK)
        loss = (losses / phone_counts).mean()
        with torch.no_grad():
            self.recent_loss.lerp_(loss, _FOLLOW)
        return loss

    def trust(self) -> Tensor:
        """From 0 to 1, how much of its gradient is worth following.

        A reader that knows little finds blanks the likeliest. Following it, the latents gather where it reads blanks:
        the entropy of the shipped voice's first codes fell from 6.9 bits to 3.2, and phones became harder to read.
        """
        return (_NO_TRUST_LOSS - self.recent_loss).clamp(0, 1)
