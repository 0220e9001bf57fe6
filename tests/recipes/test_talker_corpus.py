"""The Talker's corpus: what is kept, how often it is drawn, and how it is stored."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from recipes.nano.errors import RecipeError
from recipes.nano.talker.codes import Coded, read_codes, write_codes
from recipes.nano.talker.corpus import Batch, Corpus, Legend
from recipes.nano.talker.stage import SPEAKERS
from tests.recipes.talker_speech import coded, kind_of, settings
from tests.recipes.thinker_conversations import CPU

DRAWS = 20_000


def letters(text: str) -> list[int]:
    """A token a letter."""
    return [ord(letter) for letter in text]


LEGEND = Legend(letters, kind_of, tuple(SPEAKERS))


def corpus(utterances: list[Coded], **changes: object) -> Corpus:
    return Corpus(utterances, LEGEND, settings(**{"most_text_tokens": 40} | changes), CPU)


def texts(batch: Batch) -> list[str]:
    return [
        "".join(map(chr, row[:length]))
        for row, length in zip(batch.text.tolist(), batch.text_lengths.tolist(), strict=True)
    ]


def test_utterances_come_back_as_they_were(tmp_path: Path) -> None:
    write_codes(tmp_path / "00000.npz", coded())
    again = read_codes(tmp_path / "00000.npz")
    assert [(one.text, one.voice) for one in again] == [(one.text, one.voice) for one in coded()]
    for one, was in zip(again, coded(), strict=True):
        np.testing.assert_array_equal(one.codes, was.codes)
        assert one.codes.dtype == np.uint8


def test_a_shard_that_could_not_be_written_leaves_none(tmp_path: Path) -> None:
    broken = [Coded("Red.", "slt", np.zeros((3, 16), np.uint8)), Coded("Red.", "slt", np.zeros((3, 4), np.uint8))]
    with pytest.raises(ValueError, match="dimension"):
        write_codes(tmp_path / "00000.npz", broken)
    assert not list(tmp_path.glob("*.npz"))


def test_a_batch_holds_what_was_said_padded_with_zeros() -> None:
    batch = corpus(coded()).rows(torch.arange(5), frame_limit=20)
    assert texts(batch) == [one.text for one in coded()]
    assert batch.voices.tolist() == [list(SPEAKERS).index(one.voice) for one in coded()]
    for row, one in enumerate(coded()):
        length = int(batch.code_lengths[row])
        np.testing.assert_array_equal(batch.codes[row, :length], one.codes)
        assert not batch.codes[row, length:].any()
        assert not batch.text[row, len(one.text) :].any()


def test_every_pool_draws_what_fits_it_and_no_shorter_one() -> None:
    torch.manual_seed(1)
    made = corpus(coded())
    shorter, longer = (made.draw(pool, DRAWS) for pool in made.pools)
    assert set(shorter.code_lengths.tolist()) == {8, 11, 12}
    assert set(longer.code_lengths.tolist()) == {15, 20}
    assert shorter.codes.shape == (DRAWS, 12, 16)
    assert longer.codes.shape == (DRAWS, 20, 16)


def test_what_is_too_long_is_left_out() -> None:
    assert corpus(coded(), frame_limits=(12,)).size == 3
    # "I see a blue square…" has 37 letters.
    assert corpus(coded(), most_text_tokens=36).size == 4
    with pytest.raises(RecipeError, match="None of 5 utterances fits into 5 frames"):
        corpus(coded(), frame_limits=(5,))


def test_kinds_are_drawn_in_their_shares_however_many_there_are() -> None:
    """Three are composed; "Red." is the only phrase, "Good morning!" the only everyday answer."""
    torch.manual_seed(1)
    shares = {"everyday": 0.5, "composed": 0.3, "phrase": 0.2}
    made = corpus(coded(), frame_limits=(20,), shares=shares)
    drawn = Counter(map(kind_of, texts(made.draw(made.pools[0], DRAWS))))
    assert {kind: count / DRAWS for kind, count in drawn.items()} == pytest.approx(shares, abs=0.02)


def test_within_a_kind_every_utterance_is_drawn_alike() -> None:
    torch.manual_seed(1)
    made = corpus(coded(), frame_limits=(20,), shares={"everyday": 0, "phrase": 0})
    drawn = Counter(texts(made.draw(made.pools[0], DRAWS)))
    assert set(drawn) == {one.text for one in coded() if kind_of(one.text) == "composed"}
    assert all(count / DRAWS == pytest.approx(1 / 3, abs=0.02) for count in drawn.values())


def test_a_kind_that_is_missing_leaves_its_share_to_the_others() -> None:
    made = corpus([one for one in coded() if kind_of(one.text) != "everyday"], frame_limits=(20,))
    drawn = Counter(map(kind_of, texts(made.draw(made.pools[0], DRAWS))))
    assert drawn["phrase"] / DRAWS == pytest.approx(0.5, abs=0.02)


def test_pools_weigh_as_much_as_the_shares_that_they_hold() -> None:
    """Everyday and composed of 11 to 20 frames in the longer one; composed and the phrase in the shorter."""
    shorter, longer = corpus(coded()).pools
    assert shorter.weight == pytest.approx(0.3 + 0.3 * 2 / 3)
    assert longer.weight == pytest.approx(0.4 + 0.3 * 1 / 3)


def test_no_draw_falls_off_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    made = corpus(coded() * 200)
    for dice in (0.0, 1 - 2**-24):
        monkeypatch.setattr(torch, "rand", lambda count, device, value=dice: torch.full((count,), value))
        assert all(len(texts(made.draw(pool, 3))) == 3 for pool in made.pools)


def test_the_same_seed_remembers_the_same_residual_codes() -> None:
    voices, first_codes = torch.zeros(1, dtype=torch.int64), torch.arange(256)[None]
    drawn = []
    for seed in (1, 1, 2):
        residuals = corpus(coded() * 20, training={"steps": 1, "learning_rate": 1e-3, "seed": seed}).residuals
        torch.manual_seed(5)
        drawn.append(residuals.draw(voices, first_codes)[1])
    assert drawn[0].equal(drawn[1])
    assert not drawn[0].equal(drawn[2])
