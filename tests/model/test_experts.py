"""The mixture of experts equals transformers' block, and sums its slots in order whoever computes them."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from antiphon.errors import CheckpointError
from antiphon.model.config import DecoderConfig, OmniConfig
from antiphon.model.experts import MixtureOfExperts, local_experts
from antiphon.model.kernels.choice import Experts
from antiphon.model.kernels.plain_experts import LocalExperts
from antiphon.model.thinker import PREFIX as THINKER
from antiphon.model.weights import Checkpoint, load_experts

LAYER = 1


class PerSlot:
    """The plainest experts there can be: every slot on its own, in float32 or whatever comes."""

    def __init__(self, gate_up: Tensor, down: Tensor) -> None:
        self.gate_up, self.down = gate_up, down

    def __call__(self, hidden: Tensor, expert_ids: Tensor, weights: Tensor) -> Tensor:
        out = torch.empty(*expert_ids.shape, hidden.shape[1], dtype=hidden.dtype)
        for row in range(len(hidden)):
            for slot, expert in enumerate(expert_ids[row].tolist()):
                gate, up = (self.gate_up[expert] @ hidden[row]).chunk(2)
                out[row, slot] = weights[row, slot] * (self.down[expert] @ (torch.nn.functional.silu(gate) * up))
        return out.sum(1)


@pytest.fixture(scope="module")
def fused(tiny_checkpoint) -> tuple[Tensor, Tensor]:
    place = f"{THINKER}layers.{LAYER}.mlp.experts."
    return load_experts(Checkpoint(tiny_checkpoint), place, 0, 8, dtype=torch.float32)


def _routed(rows: int, top_k: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    scores = torch.randn(rows, 8, generator=generator).softmax(-1)
    weights, expert_ids = scores.topk(top_k, -1)
    return torch.randn(rows, width, generator=generator), expert_ids, weights


# Below and above the number of pairs that are computed one by one.
@pytest.mark.parametrize("rows", [1, 2, 4, 5, 64])
@pytest.mark.parametrize("top_k", [1, 2, 8])
def test_local_experts_equal_slot_by_slot(fused, rows, top_k):
    routed = _routed(rows, top_k, fused[0].shape[2])
    torch.testing.assert_close(LocalExperts(*fused)(*routed), PerSlot(*fused)(*routed), rtol=1e-5, atol=1e-6)


def test_experts_that_nobody_chose_are_not_touched(fused):
    gate_up, down = (tensor.clone() for tensor in fused)
    gate_up[5:], down[5:] = float("nan"), float("nan")
    hidden, expert_ids, weights = _routed(32, 2, gate_up.shape[2])
    chosen = LocalExperts(gate_up, down)(hidden, expert_ids % 5, weights)
    assert chosen.isfinite().all()


def _block(checkpoint, config: DecoderConfig, prefix: str, experts: Experts, dtype: torch.dtype) -> MixtureOfExperts:
    with torch.device("meta"):
        block = MixtureOfExperts(config, experts)
    Checkpoint(checkpoint).fill(block, f"{prefix}layers.{LAYER}.mlp.", dtype=dtype)
    return block


@pytest.mark.parametrize("part", ["thinker", "talker"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_the_block_equals_the_reference(tiny_checkpoint, tiny_reference, part, dtype):
    config = OmniConfig.from_checkpoint(tiny_checkpoint)
    text = config.thinker.text if part == "thinker" else config.require_talker().text
    model = tiny_reference.model
    layers = model.thinker.model.language_model.layers if part == "thinker" else model.talker.model.layers
    experts = local_experts(Checkpoint(tiny_checkpoint), f"{part}.model.", text, dtype=dtype, device="cpu")(LAYER)
    block = _block(tiny_checkpoint, text, f"{part}.model.", experts, dtype)
    reference = copy.deepcopy(layers[LAYER].mlp).to(dtype)
    for rows in (1, 37):
        hidden = torch.randn(rows, text.width, generator=torch.Generator().manual_seed(3)).to(dtype)
        expected = reference(hidden[None])[0]
        _, weights, expert_ids = reference.gate(hidden)
        assert torch.equal(block.route(hidden)[1], expert_ids)
        torch.testing.assert_close(block.route(hidden)[0], weights, rtol=0, atol=0)
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
        torch.testing.assert_close(block(hidden), expected, **tolerance)


def test_any_range_of_experts_is_read_alone(tiny_checkpoint, fused):
    place = f"{THINKER}layers.{LAYER}.mlp.experts."
    gate_up, down = load_experts(Checkpoint(tiny_checkpoint), place, 3, 5, dtype=torch.float32)
    assert torch.equal(gate_up, fused[0][3:5])
    assert torch.equal(down, fused[1][3:5])


def test_experts_of_another_width_are_refused(tiny_checkpoint):
    text = replace(OmniConfig.from_checkpoint(tiny_checkpoint).thinker.text, expert_width=16)
    with pytest.raises(CheckpointError, match=r"asks for 8 of width 16 over 64"):
        local_experts(Checkpoint(tiny_checkpoint), THINKER, text, dtype=torch.float32, device="cpu")(LAYER)
