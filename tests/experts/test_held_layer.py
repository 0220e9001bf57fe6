"""A layer's experts answer alike wherever they are computed."""

from pathlib import Path

import pytest
import torch

from antiphon.experts.calls import ExpertResult
from antiphon.model.config import OmniConfig
from antiphon.model.expert_weights import ExpertReader
from antiphon.model.kernels.packed_experts import PackedPairs, weighted_pairs
from antiphon.model.thinker import PREFIX
from antiphon.model.weights import Checkpoint
from services.experts.held_layer import HeldLayer, held_layer

HELD = (1, 3, 4, 6)


def packed(width: int, rows: int = 20) -> PackedPairs:
    generator = torch.Generator().manual_seed(rows)
    experts = [HELD[int(place)] for place in torch.randint(0, len(HELD), (2 * rows,), generator=generator)]
    pair_rows = torch.arange(rows, dtype=torch.int32).repeat_interleave(2)
    weights = torch.rand(2 * rows, generator=generator)
    return PackedPairs(torch.randn(rows, width, generator=generator), pair_rows, experts, weights, 4 * rows)


def answers(layer: HeldLayer, pairs: PackedPairs) -> dict[ExpertResult, torch.Tensor]:
    rows, width = pairs.hidden.shape
    into = {
        ExpertResult.PAIRS: torch.empty(len(pairs.experts), width),
        ExpertResult.SUMS: torch.full((rows, width), torch.nan),
    }
    for result, place in into.items():
        layer.answer(pairs, result, place)
    return into


def layer_on(nano: Path, device: torch.device) -> HeldLayer:
    text = OmniConfig.from_checkpoint(nano).thinker.text
    reader = ExpertReader.of(Checkpoint(nano), PREFIX, text, torch.float32, device)
    return held_layer(reader.read(0, HELD), text.experts, device)


def test_pairs_and_their_sums_are_written_where_they_are_wanted(nano: Path) -> None:
    layer = layer_on(nano, torch.device("cpu"))
    pairs = packed(256)
    got = answers(layer, pairs)
    summed = got[ExpertResult.PAIRS].view(20, 2, 256).sum(1)
    torch.testing.assert_close(got[ExpertResult.SUMS], summed, rtol=1e-6, atol=1e-6)


def test_what_is_computed_on_a_device_comes_back_the_same(nano: Path) -> None:
    """By the way that rows take to a device, on a CPU."""
    direct = layer_on(nano, torch.device("cpu"))

    def weigh(pairs: PackedPairs) -> torch.Tensor:
        return weighted_pairs(direct.experts, pairs, torch.empty(len(pairs.experts), 256))

    moved = HeldLayer(direct.experts, weigh)
    pairs = packed(256)
    expected, got = answers(direct, pairs), answers(moved, pairs)
    assert all(torch.equal(got[result], expected[result]) for result in ExpertResult)


@pytest.mark.gpu
def test_a_gpu_answers_as_a_cpu_does(nano: Path) -> None:
    pairs = packed(256)
    expected = answers(layer_on(nano, torch.device("cpu")), pairs)
    got = answers(layer_on(nano, torch.device("cuda")), pairs)
    for result in ExpertResult:
        torch.testing.assert_close(got[result], expected[result], rtol=1e-4, atol=1e-4)
