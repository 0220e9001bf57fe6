"""The fused operations over rows, heads and router logits equal plain torch, in every type, whatever the widths."""

import pytest
import torch

from antiphon.model.kernels import plain
from antiphon.model.kernels.arguments import CachePlace
from antiphon.model.kernels.fused import FUSED
from antiphon.model.rotary import Rotation
from tests.model.kernels.closeness import TYPES, assert_close, draw

EPS = 1e-6


# One row, several; widths that fill a kernel's block and that do not.
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(1, 64), (7, 48), (2, 3, 33)])
def test_normalising_equals_plain_torch(shape, dtype, device):
    rows, weight = (draw(*each, seed=1, dtype=dtype, device=device) for each in (shape, shape[-1:]))
    assert_close(FUSED.normalise(rows, weight, EPS), plain.normalise(rows, weight, EPS))


@pytest.mark.parametrize("dtype", TYPES)
def test_rows_that_lie_apart_are_normalised_too(dtype, device):
    rows, weight = draw(5, 2, 32, seed=2, dtype=dtype, device=device), draw(32, seed=3, dtype=dtype, device=device)
    assert_close(FUSED.normalise(rows[:, -1], weight, EPS), plain.normalise(rows[:, -1], weight, EPS))


@pytest.mark.parametrize("dtype", TYPES)
def test_adding_and_normalising_equals_plain_torch(dtype, device):
    rows, added = (draw(6, 48, seed=seed, dtype=dtype, device=device) for seed in (4, 5))
    weight = draw(48, seed=6, dtype=dtype, device=device)
    computed, expected = (each(rows, added, weight, EPS) for each in (FUSED.add_normalise, plain.add_normalise))
    assert_close(computed[0], expected[0], steps=0)
    assert_close(computed[1], expected[1])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(3, 64), (2, 2, 2600)])
def test_the_gate_equals_plain_torch(shape, dtype, device):
    gate_up = draw(*shape, seed=7, dtype=dtype, device=device)
    assert_close(FUSED.gated(gate_up), plain.gated(gate_up))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [48, 1300])
def test_adding_behind_a_gate_equals_plain_torch(width, dtype, device):
    rows, added = (draw(3, width, seed=seed, dtype=dtype, device=device) for seed in (14, 15))
    gate = draw(3, 1, seed=16, dtype=dtype, device=device)
    assert_close(FUSED.add_behind_gate(rows, gate, added), plain.add_behind_gate(rows, gate, added))


def _rotation(rows: int, half: int, dtype: torch.dtype, device: torch.device) -> Rotation:
    angles = draw(rows, 1, half, seed=8, dtype=torch.float32, device=device)
    cos, sin = angles.cos(), angles.sin()
    return Rotation(torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype))


# Query heads, key heads, half a head's width: as many heads as a program takes, fewer, more.
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("queries", "kv_heads", "half"), [(4, 2, 8), (1, 1, 4), (8, 1, 12)])
def test_heads_are_normalised_turned_and_kept_as_in_plain_torch(queries, kv_heads, half, dtype, device):
    heads = draw(5, queries + 2 * kv_heads, 2 * half, seed=9, dtype=dtype, device=device)
    scale = draw(queries + kv_heads, 2 * half, seed=10, dtype=dtype, device=device)
    slots = torch.tensor([3, 19, 0, 8, 7], device=device)
    results = []
    for turn in (FUSED.turn_heads, plain.turn_heads):
        keys, values = torch.full((2, 20, kv_heads, 2 * half), 7.0, dtype=dtype, device=device)
        place = CachePlace(keys, values, slots)
        turned = turn(heads.clone(), scale, EPS, _rotation(5, half, dtype, device), place)
        results.append((*turned, keys, values))
    for computed, expected in zip(*results, strict=True):
        assert_close(computed, expected)
    assert torch.equal(results[0][4], results[1][4])  # values are copied, and nothing is written beside the slots
    untouched = [slot for slot in range(20) if slot not in slots.tolist()]
    assert torch.equal(results[0][3][untouched], results[1][3][untouched])


def test_heads_of_several_frames_share_a_rotation(device):
    """Frames side by side, (frames, places, heads, width), as the code predictor turns them; nothing is kept."""
    heads = draw(3, 2, 4, 16, seed=11, dtype=torch.float32, device=device)
    scale, rotation = draw(3, 16, seed=12, dtype=torch.float32, device=device), _rotation(2, 8, torch.float32, device)
    computed, expected = (
        turn(heads.clone(), scale, EPS, rotation, None) for turn in (FUSED.turn_heads, plain.turn_heads)
    )
    for part, same in zip(computed, expected, strict=True):
        assert_close(part, same)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("normalises", [True, False])
@pytest.mark.parametrize(("experts", "count"), [(8, 1), (12, 3), (128, 8)])
def test_the_chosen_experts_are_those_of_plain_torch(experts, count, normalises, dtype, device):
    # Distinct in every type: torch does not say which of two equal scores it chooses.
    generator = torch.Generator().manual_seed(13)
    logits = torch.stack([torch.randperm(experts, generator=generator) for _ in range(6)]).to(device, dtype) / 16
    weights, expert_ids = FUSED.choose_experts(logits, count, normalises)
    expected_weights, expected_ids = plain.choose_experts(logits, count, normalises)
    assert torch.equal(expert_ids, expected_ids)
    assert_close(weights, expected_weights)


def test_of_equal_scores_the_lower_id_is_chosen(device):
    _, expert_ids = FUSED.choose_experts(torch.tensor([[0.0, 2.0, 1.0, 2.0, 1.0]], device=device), 4, True)
    assert expert_ids.tolist() == [[1, 3, 2, 4]]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of numpy, which the interpreter computes with
def test_scores_that_are_no_numbers_choose_experts_that_exist(device):
    weights, expert_ids = FUSED.choose_experts(torch.full((2, 5), torch.nan, device=device), 3, True)
    assert ((expert_ids >= 0) & (expert_ids < 5)).all()
    assert weights.isnan().all()
