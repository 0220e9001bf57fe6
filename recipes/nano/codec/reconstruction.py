"""The training step: pieces of speech through the codec and back, and what counts of the difference."""

from dataclasses import dataclass
from math import ceil
from typing import cast

import torch
from torch import Tensor, nn

from recipes.nano.training.step import Loss

from .codebook_learning import CodebookLearning, Quantised, pass_gradient
from .codec import Codec
from .decoder import speak
from .discriminator import Discriminator, adversarial_losses
from .encoder import RATE_HZ
from .phones import PhoneReader
from .quantiser import nearest
from .settings import CodecSettings
from .spectral_distance import SpectralDistance
from .speech_pool import Readings, SpeechPool

PARTS = ("mel", "spectrum", "commitment", "phones")
ADVERSARIAL_PARTS = (*PARTS, "discriminator", "deception", "features")


@dataclass(frozen=True)
class PhoneLesson:
    """Utterances whose phones can be read off their first codes."""

    reader: PhoneReader
    readings: Readings


class Reconstruction:
    def __init__(
        self,
        codec: Codec,
        learning: CodebookLearning,
        pool: SpeechPool,
        settings: CodecSettings,
        lesson: PhoneLesson | None = None,
    ) -> None:
        self._codec, self._learning, self._pool, self._settings, self._lesson = codec, learning, pool, settings, lesson
        self._distance = SpectralDistance().to(pool.samples.device)
        self._shape = codec.encoder.shape
        self._reading_frames = ceil(settings.longest_reading_seconds * RATE_HZ / self._shape.samples_per_frame)

    def compute(self) -> Loss:
        decoded, recorded, quantised = self._piece()
        parts = self._parts(decoded, recorded, quantised)
        return Loss(self._weighed(parts), torch.stack(parts))

    def compute_against(self, discriminator: Discriminator) -> Loss:
        """The discriminator's own loss is in the total: one step teaches both."""
        decoded, recorded, quantised = self._piece()
        parts = self._parts(decoded, recorded, quantised)
        versus = adversarial_losses(discriminator, decoded, recorded)
        weights = self._settings.loss
        total = self._weighed(parts) + versus.discriminator
        total = total + weights.deception * versus.deception + weights.features * versus.features
        return Loss(total, torch.stack([*parts, versus.discriminator, versus.deception, versus.features]))

    def _piece(self) -> tuple[Tensor, Tensor, Quantised]:
        """Speech decoded and as it was recorded, both (batch, samples)."""
        settings = self._settings
        samples = settings.frames_per_piece * self._shape.samples_per_frame
        recorded = self._pool.pieces(settings.pieces_per_batch, samples)
        quantised = self._fixed(recorded) if settings.only_code2wav else self._learnt(recorded)
        decoded = speak(self._codec.code2wav, quantised.frames)
        return decoded, recorded[:, : decoded.shape[1]], quantised

    def _learnt(self, recorded: Tensor) -> Quantised:
        return cast(Quantised, self._learning(self._codec.quantiser, self._codec.encoder(recorded)))

    @torch.no_grad()
    def _fixed(self, recorded: Tensor) -> Quantised:
        quantiser = self._codec.quantiser
        vectors = quantiser.decode(self._codec(recorded))
        return Quantised(cast(Tensor, quantiser.output(vectors)), commitment=vectors.new_zeros(()))

    def _parts(self, decoded: Tensor, recorded: Tensor, quantised: Quantised) -> list[Tensor]:
        mel, spectrum = self._distance(decoded, recorded)
        return [mel, spectrum, quantised.commitment, self._phones(recorded)]

    def _phones(self, recorded: Tensor) -> Tensor:
        if self._lesson is None:
            return recorded.new_zeros(())
        readings, reader = self._lesson.readings, self._lesson.reader
        chosen = torch.randint(len(readings.utterances), (self._settings.readings_per_batch,), device=recorded.device)
        utterances = readings.utterances[chosen]
        frames = -(-self._pool.lengths[utterances] // self._shape.samples_per_frame)
        samples = self._pool.whole(utterances, self._reading_frames * self._shape.samples_per_frame)
        first = first_vectors(self._codec, samples, reader.trust())
        return reader.loss(first, frames, readings.phones[chosen], readings.phone_counts[chosen])

    def _weighed(self, parts: list[Tensor]) -> Tensor:
        weights = self._settings.loss
        by_part = (weights.mel, weights.spectrum, weights.commitment, weights.phones)
        return torch.stack([weight * part for weight, part in zip(by_part, parts, strict=True)]).sum()


def first_vectors(codec: Codec, samples: Tensor, gradient_share: Tensor) -> Tensor:
    """(batch, samples) -> what the first codes alone tell (batch, frames, latent width)"""
    latents = cast(Tensor, codec.encoder(samples))
    codebook = codec.quantiser.codebooks[0]
    return pass_gradient(latents, codebook[nearest(latents.detach(), codebook)], gradient_share)


def trainable(codec: Codec, settings: CodecSettings) -> nn.Module:
    """The codec, with what stays as it is without gradient: the embeddings follow from the quantiser."""
    codec.code2wav.get_parameter("code_embedding.weight").requires_grad_(False)
    for module in (codec.encoder, codec.quantiser):
        module.requires_grad_(not settings.only_code2wav)
    return codec
