"""The residual quantiser, and how its codebooks learn."""

import pytest
import torch
from torch import Tensor

from recipes.nano.codec.codebook_learning import CodebookLearning
from recipes.nano.codec.quantiser import Quantiser, QuantiserShape, nearest

SHAPE = QuantiserShape(levels=3, codebook_size=16, latent_width=8, output_width=8)


@pytest.fixture
def quantiser() -> Quantiser:
    torch.manual_seed(0)
    return Quantiser(SHAPE)


def blobs(centres: int, batch: int = 8, frames: int = 32) -> Tensor:
    """(batch, frames, width) close to one of some centres"""
    places = torch.randn(centres, SHAPE.latent_width) * 3
    return places[torch.randint(centres, (batch, frames))] + torch.randn(batch, frames, SHAPE.latent_width) * 0.01


def learn(quantiser: Quantiser, latents: Tensor, steps: int) -> CodebookLearning:
    learning = CodebookLearning(quantiser)
    for _ in range(steps):
        learning(quantiser, latents)
    return learning


def test_a_code_names_the_nearest_vector() -> None:
    torch.manual_seed(0)
    vectors, codebook = torch.randn(5, 7, 8), torch.randn(16, 8)
    expected = torch.cdist(vectors.flatten(0, 1), codebook).argmin(1).view(5, 7)
    assert torch.equal(nearest(vectors, codebook), expected)


def test_codebooks_move_to_what_is_said(quantiser: Quantiser) -> None:
    latents = blobs(centres=10)
    learn(quantiser, latents, steps=100)
    error = (quantiser.decode(quantiser.encode(latents)) - latents).square().mean()
    assert error < 0.01 * latents.square().mean()


def test_each_level_refines_those_before(quantiser: Quantiser) -> None:
    latents = torch.randn(16, 64, SHAPE.latent_width)
    learn(quantiser, latents, steps=200)
    codes = quantiser.encode(latents)
    errors = []
    for levels in range(1, SHAPE.levels + 1):
        vectors = [quantiser.codebooks[level][codes[..., level]] for level in range(levels)]
        errors.append(float((torch.stack(vectors).sum(0) - latents).square().mean()))
    assert errors[0] > errors[1] > errors[2]


def test_codes_that_nobody_chooses_begin_anew(quantiser: Quantiser) -> None:
    quantiser.codebooks.fill_(100.0)
    quantiser.codebooks[:, 0] = 0.0
    latents = torch.randn(16, 64, SHAPE.latent_width)
    learn(quantiser, latents, steps=100)
    chosen = set(quantiser.encode(latents)[..., 0].flatten().tolist())
    assert len(chosen) == SHAPE.codebook_size


def test_going_on_from_a_trained_quantiser_keeps_it(quantiser: Quantiser) -> None:
    latents = torch.randn(8, 32, SHAPE.latent_width)
    learn(quantiser, latents, steps=200)
    trained = quantiser.codebooks.clone()
    learning = CodebookLearning(quantiser)
    learning.go_on_from(quantiser, frames_a_step=8 * 32)
    learning(quantiser, latents)
    assert (quantiser.codebooks - trained).norm() < 0.1 * trained.norm()


def test_latents_get_the_gradient_of_their_vectors(quantiser: Quantiser) -> None:
    latents = torch.randn(2, 4, SHAPE.latent_width, requires_grad=True)
    quantised = CodebookLearning(quantiser)(quantiser, latents)
    (gradient,) = torch.autograd.grad(quantised.frames.sum(), latents)
    torch.testing.assert_close(gradient, quantiser.output.weight.sum(0).expand_as(gradient))


def test_the_first_levels_alone_are_trained_too(quantiser: Quantiser) -> None:
    latents = torch.randn(64, 1, SHAPE.latent_width)
    learn(quantiser, latents, steps=50)
    codes = quantiser.encode(latents)
    parts = torch.stack([quantiser.codebooks[level][codes[..., level]] for level in range(SHAPE.levels)])
    prefixes = [quantiser.output(parts[: levels + 1].sum(0)) for levels in range(SHAPE.levels)]
    frames = CodebookLearning(quantiser)(quantiser, latents).frames
    distances = torch.stack([(frames - prefix).abs().amax((1, 2)) for prefix in prefixes])
    assert distances.amin(0).max() < 1e-5
    assert set(distances.argmin(0).tolist()) == set(range(SHAPE.levels))


def test_code_embeddings_have_the_sum_as_their_mean(quantiser: Quantiser) -> None:
    codes = torch.randint(SHAPE.codebook_size, (5, SHAPE.levels))
    table = quantiser.code_embeddings().view(SHAPE.levels, SHAPE.codebook_size, -1)
    mean = torch.stack([table[level][codes[:, level]] for level in range(SHAPE.levels)]).mean(0)
    torch.testing.assert_close(mean, quantiser.output(quantiser.decode(codes)))
