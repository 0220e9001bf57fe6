"""How well held-out speech survives the codec: what no Talker can surpass."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from recipes.nano.domain.voices import Integers

from .codec import Codec
from .encode import encode
from .spectral_distance import SpectralDistance


@torch.inference_mode()
def ceiling(codec: Codec, distance: SpectralDistance, speech: Sequence[Integers]) -> Mapping[str, float]:
    """Of 24 kHz speech, encoded and decoded: mean distances to itself, and the entropy of the first codes in bits."""
    if not speech:
        return {}
    coded = [torch.from_numpy(codes).long().to(codec.device) for codes in encode(codec, speech)]
    distances = [_distance(codec, distance, one, codes) for one, codes in zip(speech, coded, strict=True)]
    mel, spectrum = torch.stack(distances).mean(0).tolist()
    return {"mel": mel, "spectrum": spectrum, "first code bits": _entropy_bits(torch.cat(coded)[:, 0])}


def _distance(codec: Codec, distance: SpectralDistance, recorded: Integers, codes: Tensor) -> Tensor:
    """(mel, spectrum)"""
    truth = torch.from_numpy(recorded).to(codec.device).float()[None] / 32768
    decoded = codec.decode(codes[None])[:, : truth.shape[1]]
    return torch.stack(distance(decoded, truth))


def _entropy_bits(codes: Tensor) -> float:
    counts = torch.bincount(codes).float()
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log2()).sum())
