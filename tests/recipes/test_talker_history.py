"""Histories are as unreliable as they are asked to be, in the ways in which a Talker's own would be."""

import numpy as np
import pytest
import torch
from torch import Tensor

from recipes.nano.talker.corpus import Batch
from recipes.nano.talker.history import NOISE_OF_LEVEL, History
from recipes.nano.talker.residuals import Residuals
from recipes.nano.talker.settings import HistorySettings
from tests.recipes.thinker_conversations import CPU

VOICES, FIRST_CODES, UTTERANCES, FRAMES = 3, 64, 600, 40
NOTHING = dict.fromkeys(
    ("most_own_first_codes", "most_strange_residuals", "most_noisy_residuals", "most_random_frames"), 0.0
)
# Of 256 codes drawn at random, one is the one that was there.
CHANCE = 1 / 256


@pytest.fixture(scope="module")
def residuals() -> Residuals:
    """Of every voice and of the lower first codes so many frames that no place is empty; they say whose they are."""
    first, take = (grid.flatten() for grid in np.meshgrid(np.arange(FIRST_CODES), np.arange(1000) % 200))
    speech = [
        (voice, np.stack((first, first, np.full_like(first, voice), *[take] * 13), axis=-1).astype(np.uint8))
        for voice in range(VOICES)
    ]
    return Residuals(speech, seed=1, device=CPU)


@pytest.fixture(scope="module")
def batch() -> Batch:
    dice = torch.Generator().manual_seed(2)
    first = torch.randint(FIRST_CODES, (UTTERANCES, FRAMES), generator=dice)
    voices = torch.randint(VOICES, (UTTERANCES,), generator=dice)
    # Takes from 200 on are remembered nowhere: what is exchanged can be told.
    rest = (first, voices[:, None].expand_as(first), *[torch.full_like(first, 250)] * 13)
    lengths = torch.full((UTTERANCES,), FRAMES)
    return Batch(torch.zeros(UTTERANCES, 1), lengths, torch.stack((first, *rest), dim=-1), lengths, voices)


def made(residuals: Residuals, batch: Batch, own: Tensor | None = None, **changes: float) -> Tensor:
    torch.manual_seed(3)
    history = History(residuals, HistorySettings(**NOTHING | changes), CPU)
    return history.unreliable(batch, own)


def share(changed: Tensor) -> float:
    return float(changed.float().mean())


def assert_shares_differ(changed: Tensor, most: float) -> None:
    """Of every utterance another share is changed, from none to `most`."""
    shares = changed.float().mean(dim=1)
    assert shares.min() < 0.05
    assert most - 0.1 < shares.quantile(0.99) < most + 0.15


def test_nothing_changes_where_nothing_is_asked_for(residuals: Residuals, batch: Batch) -> None:
    own = (batch.codes[..., 0] + 1) % FIRST_CODES
    assert made(residuals, batch).equal(batch.codes)
    assert made(residuals, batch, own).equal(batch.codes)


def test_what_was_said_stays_as_it_was(residuals: Residuals, batch: Batch) -> None:
    before = batch.codes.clone()
    assert not made(residuals, batch, most_random_frames=1.0, most_noisy_residuals=1.0).equal(before)
    assert batch.codes.equal(before)


def test_own_first_codes_stand_for_true_ones_in_shares_from_none_to_the_most(
    residuals: Residuals, batch: Batch
) -> None:
    true, own = batch.codes[..., 0], (batch.codes[..., 0] + 1) % FIRST_CODES
    first = made(residuals, batch, own, most_own_first_codes=0.8)[..., 0]
    assert ((first == own) | (first == true)).all()
    assert share(first == own) == pytest.approx(0.4, abs=0.02)
    assert_shares_differ(first == own, 0.8)


def test_a_mistaken_first_code_brings_residual_codes_of_its_own(residuals: Residuals, batch: Batch) -> None:
    own = (batch.codes[..., 0] + 1) % FIRST_CODES
    codes = made(residuals, batch, own, most_own_first_codes=1.0)
    mistaken = codes[..., 0] != batch.codes[..., 0]
    assert_said_by(codes[mistaken], batch.voices[:, None].expand_as(mistaken)[mistaken])
    assert (codes[mistaken][:, 3:] < 200).all(), "they come from what was remembered"
    assert codes[~mistaken].equal(batch.codes[~mistaken])


def test_a_mistaken_first_code_that_nobody_ever_said_keeps_the_true_residual_codes(
    residuals: Residuals, batch: Batch
) -> None:
    unheard_of = torch.full_like(batch.codes[..., 0], FIRST_CODES + 5)
    codes = made(residuals, batch, unheard_of, most_own_first_codes=1.0, most_strange_residuals=1.0)
    assert (codes[..., 0] == FIRST_CODES + 5).any()
    mistaken = codes[..., 0] == FIRST_CODES + 5
    assert codes[mistaken][:, 1:].equal(batch.codes[mistaken][:, 1:])


def assert_said_by(codes: Tensor, voices: Tensor) -> None:
    """codes (n, 16), voices (n): of the same voice, after the same first code"""
    assert codes[:, 1].equal(codes[:, 0])
    assert codes[:, 2].equal(voices)


def test_strange_residual_codes_come_from_the_same_voice_and_first_code(residuals: Residuals, batch: Batch) -> None:
    codes = made(residuals, batch, most_strange_residuals=0.6)
    assert codes[..., 0].equal(batch.codes[..., 0])
    assert_said_by(codes.flatten(0, 1), batch.voices[:, None].expand(-1, FRAMES).flatten())
    exchanged = codes[..., 3] < 200
    assert share(exchanged) == pytest.approx(0.3, abs=0.02)
    assert_shares_differ(exchanged, 0.6)
    assert len(set(codes[..., 3][exchanged].tolist())) > 100, "many frames stand in for one another"


def test_noise_takes_residual_codes_by_their_levels(residuals: Residuals, batch: Batch) -> None:
    codes = made(residuals, batch, most_noisy_residuals=0.5)
    assert codes[..., 0].equal(batch.codes[..., 0])
    for level, of_level in enumerate(NOISE_OF_LEVEL, start=1):
        wrong = codes[..., level] != batch.codes[..., level]
        assert share(wrong) == pytest.approx(0.25 * of_level * (1 - CHANCE), abs=0.02)
    assert_shares_differ((codes[..., -1] != batch.codes[..., -1]), 0.5)


def test_lost_frames_are_lost_whole_and_mostly_few(residuals: Residuals, batch: Batch) -> None:
    """The square of an even share has a mean of a third."""
    codes = made(residuals, batch, most_random_frames=0.9)
    wrong = (codes != batch.codes).sum(dim=-1)
    assert ((wrong == 0) | (wrong >= 13)).all()
    assert share(wrong > 0) == pytest.approx(0.3, abs=0.02)
    lost = codes[wrong > 0]
    assert float(lost.float().mean()) == pytest.approx(127.5, abs=1)
    assert (int(lost.amin()), int(lost.amax())) == (0, 255)


def test_remembered_frames_are_whole_even_where_more_come_than_there_is_room_for() -> None:
    said = np.array([[7, *[take] * 15] for take in range(200)], np.uint8)
    residuals = Residuals([(1, said)], seed=4, device=CPU)
    torch.manual_seed(5)
    codes, known = residuals.draw(torch.ones(1, dtype=torch.int64), torch.full((1, 500), 7))
    assert known.float().mean() > 0.9
    assert (codes[known].amin(dim=-1) == codes[known].amax(dim=-1)).all()
    _, of_another_voice = residuals.draw(torch.zeros(1, dtype=torch.int64), torch.full((1, 500), 7))
    assert not of_another_voice.any()
