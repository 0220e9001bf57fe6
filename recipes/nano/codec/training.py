"""Trains the codec in two phases: by the spectra alone, then, where the settings say so, against a discriminator."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from recipes.nano.domain.splits import held_out_of_speech
from recipes.nano.folders import WorkFolder
from recipes.nano.model.architecture import build_model, config_for
from recipes.nano.speech.store import Utterance
from recipes.nano.training.step import Compute
from recipes.nano.training.trainer import Kind, Trainer

from .ceiling import ceiling
from .codebook_learning import CodebookLearning
from .codec import Codec
from .discriminator import Discriminator
from .encoder import RATE_HZ
from .phones import PhoneReader, spellings
from .reconstruction import ADVERSARIAL_PARTS, PARTS, PhoneLesson, Reconstruction, trainable
from .settings import CodecSettings
from .spectral_distance import SpectralDistance
from .speech_pool import Readings, SpeechPool


def new_codec(settings: CodecSettings, tokenizer: Path) -> Codec:
    """Drawn from the training's seed, or the shipped one. Code2Wav is a part of a model that needs a tokenizer."""
    seed = settings.training.seed
    code2wav = build_model(config_for(tokenizer), seed).code2wav
    if settings.from_shipped:
        return Codec.shipped(code2wav)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Codec(code2wav)


def train(codec: Codec, spoken: Sequence[Utterance], settings: CodecSettings, folder: WorkFolder) -> None:
    """Goes on from the states of the two phases where `folder` has them."""
    learnt = [utterance for utterance in spoken if not held_out_of_speech(utterance.text)]
    held_out = [utterance.samples for utterance in spoken if held_out_of_speech(utterance.text)]
    learning, lesson = _learning(codec, settings), _lesson(codec, learnt, settings)
    step = Reconstruction(codec, learning, SpeechPool.of(learnt, codec.device), settings, lesson)
    modules = {"codec": trainable(codec, settings), "learning": learning}
    if lesson is not None:
        modules["phones"] = lesson.reader
    distance = SpectralDistance().to(codec.device)
    validate = partial(ceiling, codec, distance, held_out[: settings.held_out_utterances])
    state = folder.state("codec")
    Trainer("codec", modules, [_only(step.compute)], PARTS, settings.training, state).run(validate)
    if settings.adversarial is not None:
        discriminator = Discriminator().to(codec.device)
        against = _only(partial(step.compute_against, discriminator))
        modules["discriminator"] = discriminator
        codec.zero_grad()  # gradients of a captured step lie in its graph's own memory
        state = folder.state("codec-adversarial")
        Trainer("codec", modules, [against], ADVERSARIAL_PARTS, settings.adversarial, state).run(validate)


def _only(compute: Compute) -> Kind:
    return Kind(compute, lambda: 1.0)


def _learning(codec: Codec, settings: CodecSettings) -> CodebookLearning:
    learning = CodebookLearning(codec.quantiser)
    if settings.from_shipped:
        learning.go_on_from(codec.quantiser, settings.pieces_per_batch * settings.frames_per_piece)
    return learning.to(codec.device)


def _lesson(codec: Codec, spoken: Sequence[Utterance], settings: CodecSettings) -> PhoneLesson | None:
    if settings.loss.phones == 0 or settings.only_code2wav:
        return None
    most_samples = int(settings.longest_reading_seconds * RATE_HZ)
    readings = Readings.of(spoken, spellings(), most_samples, codec.device)
    return PhoneLesson(PhoneReader(codec.quantiser.shape.latent_width).to(codec.device), readings)
