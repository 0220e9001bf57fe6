"""A speech has the same bits however its frames are grouped, whoever goes through the model with it, and wherever it is
taken up again: a turn that was moved, or met a busy machine, sounds as one that was not."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from antiphon.model.code2wav import Code2Wav
from antiphon.model.config import OmniConfig
from antiphon.model.weights import Checkpoint

FRAMES = 14
GROUPS = {
    "twos and threes": [2, 3, 3, 2, 3, 1],
    "growing": [1, 1, 2, 3, 7],
    "all at once": [14],
}


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def load(checkpoint: Path) -> Code2Wav:
    return Code2Wav.load(Checkpoint(checkpoint), OmniConfig.from_checkpoint(checkpoint), dtype=torch.float32)


def draw_codes(model: Code2Wav, speeches: int, frames: int = FRAMES) -> Tensor:
    generator = torch.Generator().manual_seed(speeches)
    return torch.randint(0, model.config.codebook_size, (speeches, frames, 16), generator=generator)


def side_by_side(model: Code2Wav, codes: Tensor, sizes: list[int]) -> Tensor:
    """(speeches, samples), so many frames of each at a time."""
    streams = model.streams()
    opened = [streams.open() for _ in codes]
    return torch.cat([streams.push(opened, part) for part in torch.split(codes, sizes, 1)], 1)


@cache
def one_by_one(model: Code2Wav) -> tuple[Tensor, list[Tensor]]:
    """Codes of eight speeches, and the sound of each alone, frame by frame."""
    codes = draw_codes(model, 8)
    return codes, [side_by_side(model, each[None], [1] * FRAMES)[0] for each in codes]


def heard_beside(neighbours: int, model: Code2Wav, sizes: list[int]) -> None:
    codes, alone = one_by_one(model)
    for wave, expected in zip(side_by_side(model, codes[: neighbours + 1], sizes), alone, strict=False):
        assert torch.equal(wave, expected)


@pytest.mark.parametrize("neighbours", [0, 1, 3, 7])
@pytest.mark.parametrize("which", ["nano", "tiny_checkpoint"])
@pytest.mark.parametrize("sizes", GROUPS.values(), ids=GROUPS)
def test_grouping_and_neighbours_change_no_bit(
    sizes: list[int], which: str, neighbours: int, request: pytest.FixtureRequest
) -> None:
    with threads(1):
        heard_beside(neighbours, load(request.getfixturevalue(which)), sizes)


@pytest.mark.parametrize("which", ["nano", "tiny_checkpoint"])
def test_a_second_thread_changes_no_bit(which: str, request: pytest.FixtureRequest) -> None:
    model = load(request.getfixturevalue(which))
    with threads(1):
        one_by_one(model)
    with threads(2):
        heard_beside(2, model, GROUPS["growing"])


@pytest.mark.parametrize("first", [1, 5, 17])
def test_a_speech_that_is_taken_up_has_the_bits_of_the_whole_one(first: int, nano: Path) -> None:
    model = load(nano)
    (codes,) = draw_codes(model, 1, frames=60)
    stream = model.stream()
    stream.begin_at(first)
    wave = torch.cat([stream.push(part) for part in torch.split(codes[first:], 7)])
    known = model.context_frames * model.samples_per_frame
    assert len(wave) > known
    assert torch.equal(wave[known:], model.decode(codes)[first * model.samples_per_frame + known :])
