"""The fused experts, pair by pair and expert by expert, equal plain torch and touch nobody whom no row chose."""

import pytest
import torch
from torch import Tensor

from antiphon.model.kernels.fused import FUSED
from antiphon.model.kernels.fused_experts import FusedExperts
from antiphon.model.kernels.fused_packed import FusedPacked
from antiphon.model.kernels.launching import launch
from antiphon.model.kernels.many_experts import sort_pairs
from antiphon.model.kernels.packed_experts import ExpertWeights, PackedPairs
from antiphon.model.kernels.plain_experts import LocalExperts
from tests.model.kernels.closeness import TYPES, assert_close, draw

EXPERTS, WIDTH, EXPERT_WIDTH = 8, 40, 24


def _weights(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    gate_up = draw(EXPERTS, 2 * EXPERT_WIDTH, WIDTH, seed=1, dtype=dtype, device=device) / 6
    return gate_up, draw(EXPERTS, WIDTH, EXPERT_WIDTH, seed=2, dtype=dtype, device=device) / 5


def _routed(rows: int, top_k: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    scores = draw(rows, EXPERTS, seed=rows, dtype=torch.float32, device=device).softmax(-1)
    weights, expert_ids = scores.topk(top_k, -1)
    return draw(rows, WIDTH, seed=3, dtype=dtype, device=device), expert_ids, weights.to(dtype)


# 1 row of 3 pairs goes pair by pair, more rows expert by expert; 300 fill several blocks of rows.
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "top_k"), [(1, 1), (1, 3), (2, 3), (40, 3), (300, 2)])
def test_fused_experts_equal_plain_torch(rows, top_k, dtype, device):
    routed = _routed(rows, top_k, dtype, device)
    computed, expected = (kind(*_weights(dtype, device))(*routed) for kind in (FUSED.experts, LocalExperts))
    assert_close(computed, expected)


@pytest.mark.parametrize("rows", [1, 70])
def test_experts_that_nobody_chose_are_not_touched(rows, device):
    gate_up, down = _weights(torch.float32, device)
    gate_up[5:], down[5:] = torch.nan, torch.nan
    hidden, expert_ids, weights = _routed(rows, 2, torch.float32, device)
    assert FUSED.experts(gate_up, down)(hidden, expert_ids % 5, weights).isfinite().all()


@pytest.mark.parametrize("rows", [1, 200])
def test_all_rows_may_choose_one_expert(rows, device):
    hidden, expert_ids, weights = _routed(rows, 1, torch.float32, device)
    routed = hidden, torch.full_like(expert_ids, 6), weights
    computed, expected = (kind(*_weights(torch.float32, device))(*routed) for kind in (FUSED.experts, LocalExperts))
    assert_close(computed, expected)


def test_a_row_that_is_no_number_spoils_no_other(device):
    hidden, expert_ids, weights = _routed(40, 3, torch.float32, device)
    experts = FUSED.experts(*_weights(torch.float32, device))
    expected = experts(hidden, expert_ids, weights)
    hidden[7] = torch.nan
    computed = experts(hidden, expert_ids, weights)
    others = [row for row in range(40) if row != 7]
    assert computed[7].isnan().all()
    assert torch.equal(computed[others], expected[others])


# Fewer pairs than one look takes, as many, and several looks.
@pytest.mark.parametrize("pairs", [1, 16, 50])
def test_pairs_are_sorted_by_expert_and_stay_in_order(pairs, device):
    expert_ids = torch.randint(0, EXPERTS, (pairs,), generator=torch.Generator().manual_seed(pairs)).to(device)
    order = torch.empty(pairs, dtype=torch.int32, device=device)
    starts = torch.empty(EXPERTS + 1, dtype=torch.int32, device=device)
    launch(sort_pairs, (EXPERTS,), expert_ids, order, starts, pairs, block=16)
    assert order.tolist() == expert_ids.argsort(stable=True).tolist()
    counts = torch.bincount(expert_ids, minlength=EXPERTS).cumsum(0)
    assert starts.tolist() == [0, *counts.tolist()]


# Few pairs of the whole step go pair by pair, many expert by expert, however few of them are here.
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("rows", "top_k"), [(1, 3), (2, 3), (40, 3), (300, 2)])
def test_parts_of_the_fused_experts_have_the_bits_of_all(rows, top_k, dtype, device):
    gate_up, down = _weights(dtype, device)
    hidden, expert_ids, weights = _routed(rows, top_k, dtype, device)
    flat = expert_ids.flatten().tolist()
    slots = hidden.new_zeros(len(flat), WIDTH)
    for held in ([0, 3, 7], [1], [2, 4, 5, 6]):
        packed = FusedPacked({each: ExpertWeights((gate_up[each].T,), down[each].T) for each in held}, EXPERTS)
        places = torch.tensor([place for place, each in enumerate(flat) if each in held], device=device)
        experts = [flat[place] for place in places.tolist()]
        if experts:
            pairs = PackedPairs(hidden, places // top_k, experts, weights.flatten()[places], len(flat))
            slots[places] = packed.weighted_pairs(pairs)
    one_slot_each = FusedExperts(gate_up, down)(
        hidden.repeat_interleave(top_k, 0), expert_ids.view(-1, 1), weights.view(-1, 1), step_pairs=len(flat)
    )
    assert torch.equal(slots, one_slot_each)
    mixed = slots.view(rows, top_k, WIDTH).sum(1)
    assert_close(mixed, FusedExperts(gate_up, down)(hidden, expert_ids, weights))


def test_an_expert_that_is_not_held_is_missed(device):
    gate_up, down = _weights(torch.float32, device)
    packed = FusedPacked({2: ExpertWeights((gate_up[2].T,), down[2].T)}, EXPERTS)
    hidden = torch.ones(1, WIDTH, device=device)
    pairs = PackedPairs(hidden, torch.zeros(1, dtype=torch.int64, device=device), [3], torch.ones(1, device=device), 1)
    with pytest.raises(KeyError, match="3"):
        packed.weighted_pairs(pairs)
    assert torch.equal(packed.experts[2].down, down[2].T)
