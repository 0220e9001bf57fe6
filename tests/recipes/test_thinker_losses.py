"""The recogniser's loss against torch's own; what augmentation may and may not do."""

import pytest
import torch
from torch import Tensor

from recipes.nano.thinker.augmentation import Augmentation
from recipes.nano.thinker.losses import Transcriber
from recipes.nano.thinker.media import Sounds
from recipes.nano.thinker.reading import Heard
from recipes.nano.training.ctc import ctc_loss
from tests.recipes.thinker_conversations import CPU

SYMBOLS, BLANK = 7, 6
# Fewer rows than there are, one symbol, nothing said, a symbol twice and thrice in a row.
ROWS = torch.tensor([12, 9, 12, 5, 7])
LENGTHS = torch.tensor([4, 1, 0, 3, 3])
TARGETS = torch.tensor([[1, 2, 3, 4], [5, 0, 0, 0], [0, 0, 0, 0], [2, 2, 1, 0], [3, 3, 3, 0]])


@pytest.fixture
def scores() -> Tensor:
    logits = torch.randn(5, 12, SYMBOLS, generator=torch.Generator().manual_seed(1))
    return logits.requires_grad_()


def by_torch(scores: Tensor, targets: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
    return torch.nn.functional.ctc_loss(
        scores.log_softmax(-1).transpose(0, 1), targets, rows, lengths, BLANK, reduction="none", zero_infinity=True
    )


def test_recognisers_losses_and_gradients_are_those_of_torch(scores: Tensor) -> None:
    ours = ctc_loss(scores.log_softmax(-1), TARGETS, ROWS, LENGTHS, BLANK)
    theirs = by_torch(scores, TARGETS, ROWS, LENGTHS)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])
    (our_gradient,) = torch.autograd.grad((ours * weights).sum(), scores)
    (their_gradient,) = torch.autograd.grad((theirs * weights).sum(), scores)
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_said_in_so_few_rows_costs_nothing_and_teaches_nothing(scores: Tensor) -> None:
    twice_in_two_rows = ctc_loss(
        scores.log_softmax(-1), torch.full((5, 2), 3), torch.full((5,), 2), torch.full((5,), 2), BLANK
    )
    assert twice_in_two_rows.tolist() == [0.0] * 5
    (gradient,) = torch.autograd.grad(twice_in_two_rows.sum(), scores)
    assert not gradient.any()


def test_only_recordings_that_say_something_are_transcribed() -> None:
    silence = torch.zeros(16_000, dtype=torch.int16).numpy()
    bank = Sounds([silence, silence, silence], [(), (1, 2), (4,)], CPU)
    transcriber = Transcriber(width=8, vocabulary_size=6)
    heard = Heard(torch.randn(3, 13, 8), torch.tensor([13, 13, 13]))
    alone = transcriber.loss(Heard(heard.rows[1:2], heard.counts[1:2]), torch.tensor([1]), bank)
    beside_silence = transcriber.loss(Heard(heard.rows[:2], heard.counts[:2]), torch.tensor([0, 1]), bank)
    torch.testing.assert_close(alone, beside_silence)
    nothing_said = transcriber.loss(Heard(heard.rows[:1], heard.counts[:1]), torch.tensor([0]), bank)
    assert nothing_said == 0


def test_augmented_sounds_keep_their_length_and_stay_in_range() -> None:
    lengths = torch.tensor([4_000, 16_000] * 50)
    within = torch.arange(16_000) < lengths[:, None]
    samples = torch.sin(torch.arange(16_000) * 0.05) * 0.5 * within
    torch.manual_seed(3)
    louder = Augmentation(noisy_share=1.0).of_samples(samples, lengths)
    assert not louder[~within].any()
    assert louder.abs().max() <= 1
    assert not torch.equal(louder[0], louder[2])


def test_gain_spans_the_decibels_asked_for() -> None:
    samples, lengths = torch.full((2_000, 10), 0.1), torch.full((2_000,), 10)
    torch.manual_seed(3)
    gains = Augmentation(softest_db=-10, loudest_db=6, noisy_share=0.0).of_samples(samples, lengths)[:, 0] / 0.1
    decibels = 20 * gains.log10()
    assert -10 <= decibels.min() < -9.8
    assert 5.8 < decibels.max() <= 6.001


def test_at_most_one_stretch_and_one_band_are_masked() -> None:
    torch.manual_seed(3)
    masked = Augmentation(most_masked_frames=12, most_masked_bins=16).of_frames(torch.ones(300, 128, 500)) == 0
    stretches, bands = masked.all(dim=1), masked.all(dim=2)
    assert 9 <= stretches.sum(dim=1).max() <= 12
    assert 13 <= bands.sum(dim=1).max() <= 16
    assert torch.equal(masked, stretches[:, None, :] | bands[:, :, None])
    for places in (stretches, bands):
        assert (places.int().diff(dim=1).abs().sum(dim=1) <= 2).all()


def test_no_augmentation_leaves_everything_as_it_is() -> None:
    none = Augmentation(softest_db=0, loudest_db=0, noisy_share=0, most_masked_frames=0, most_masked_bins=0)
    samples, frames = torch.rand(3, 100) - 0.5, torch.rand(3, 128, 20)
    torch.testing.assert_close(none.of_samples(samples, torch.tensor([100] * 3)), samples)
    assert torch.equal(none.of_frames(frames), frames)
