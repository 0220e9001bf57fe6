"""The forward that is trained gives what transformers' own gives, one sequence at a time, on random weights."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import load_balancing_loss_func

from recipes.nano.model.dense_experts import ROUTER_Z_WEIGHT, RouterBalance, use_dense_experts
from recipes.nano.model.parts import ThinkerParts
from recipes.nano.model.text_model import run_text_model
from tests.recipes.random_model import random_nano

LENGTHS = (5, 23, 14)
WIDTH, EXPERTS, CHOSEN = 256, 8, 2
# float32 sums in another order; rows have a deviation near one.
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Sequences:
    """A batch, packed to the left; what follows the ends is noise, too."""

    rows: Tensor
    positions: Tensor
    visual: Tensor
    deepstack: tuple[Tensor, ...]

    def alone(self, number: int) -> tuple[Tensor, Tensor]:
        """Rows (1, length, width) and positions (3, 1, length) of one of them."""
        length = LENGTHS[number]
        return self.rows[number : number + 1, :length], self.positions[:, number : number + 1, :length]

    def deepstack_alone(self, number: int) -> Mapping[str, object]:
        """As transformers takes it: where it is added, and only the rows that are added there."""
        mask = self.visual[number : number + 1, : LENGTHS[number]]
        levels = [level[number : number + 1, : LENGTHS[number]][mask] for level in self.deepstack]
        return {"visual_pos_masks": mask, "deepstack_visual_embeds": levels}


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    dice = torch.Generator().manual_seed(1)
    size = len(LENGTHS), max(LENGTHS)
    steps = torch.randint(0, 3, (3, *size), generator=dice) / 2
    return Sequences(
        rows=torch.randn(*size, WIDTH, generator=dice),
        positions=steps.cumsum(dim=-1),
        visual=torch.rand(size, generator=dice) < 0.4,
        deepstack=tuple(torch.randn(*size, WIDTH, generator=dice) for _ in range(3)),
    )


def text_model(model: Any, part: str) -> nn.Module:
    chosen: nn.Module = ThinkerParts.of(model.thinker).text_model if part == "thinker" else model.talker.model
    return chosen


@pytest.fixture(params=["thinker", "talker"])
def reference(request: pytest.FixtureRequest, nano: Path) -> nn.Module:
    return text_model(random_nano(nano), request.param)


@pytest.fixture
def dense(reference: nn.Module) -> nn.Module:
    copied = deepcopy(reference)
    use_dense_experts(copied)
    return copied


@torch.no_grad()
def test_every_sequence_of_a_batch_is_read_as_transformers_reads_it_alone(
    reference: Any, dense: nn.Module, sequences: Sequences
) -> None:
    hidden, _ = run_text_model(dense, sequences.rows, sequences.positions)
    for number, length in enumerate(LENGTHS):
        rows, positions = sequences.alone(number)
        alone = reference(inputs_embeds=rows, position_ids=positions).last_hidden_state
        torch.testing.assert_close(hidden[number, :length], alone[0], atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
def test_deepstack_is_added_and_rows_are_kept_where_transformers_does_it(nano: Path, sequences: Sequences) -> None:
    reference: Any = text_model(random_nano(nano), "thinker")
    for layers in range(1, len(reference.layers)):
        hidden, kept = run_text_model(
            reference,
            sequences.rows,
            sequences.positions,
            deepstack=sequences.deepstack,
            visual_mask=sequences.visual,
            keep_after_layer=layers,
        )
        assert kept is not None
        for number, length in enumerate(LENGTHS):
            rows, positions = sequences.alone(number)
            told = sequences.deepstack_alone(number)
            alone = reference(inputs_embeds=rows, position_ids=positions, output_hidden_states=True, **told)
            torch.testing.assert_close(hidden[number, :length], alone.last_hidden_state[0], atol=TOLERANCE, rtol=1e-5)
            torch.testing.assert_close(kept[number, :length], alone.hidden_states[layers][0], atol=TOLERANCE, rtol=1e-5)


def test_nothing_is_kept_unasked(nano: Path, sequences: Sequences) -> None:
    assert run_text_model(text_model(random_nano(nano), "talker"), sequences.rows, sequences.positions)[1] is None


def test_deepstack_without_its_places_is_refused(nano: Path, sequences: Sequences) -> None:
    thinker = text_model(random_nano(nano), "thinker")
    with pytest.raises(ValueError, match="need a visual_mask"):
        run_text_model(thinker, sequences.rows, sequences.positions, deepstack=sequences.deepstack)


def test_every_weight_gets_the_gradient_that_transformers_gives_it(
    reference: Any, dense: nn.Module, sequences: Sequences
) -> None:
    rows, positions = sequences.alone(1)
    watched = [name for name, _ in reference.named_parameters() if "embed" not in name]
    theirs = reference(inputs_embeds=rows, position_ids=positions).last_hidden_state
    ours, _ = run_text_model(dense, rows, positions)
    expected_and_got = gradients(reference, theirs, watched), gradients(dense, ours, watched)
    for name, expected, got in zip(watched, *expected_and_got, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4 * float(expected.abs().max()), rtol=0, msg=name)


def gradients(model: nn.Module, hidden: Tensor, names: list[str]) -> tuple[Tensor, ...]:
    direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    return torch.autograd.grad((hidden * direction).sum(), [model.get_parameter(name) for name in names])


def test_balance_is_the_loss_of_transformers_and_the_z_loss_averaged_over_layers(
    dense: nn.Module, sequences: Sequences
) -> None:
    balance, seen = RouterBalance(dense), list[Tensor]()
    for name, module in dense.named_modules():
        if name.endswith(".mlp.gate"):
            module.register_forward_hook(lambda _, __, outputs: seen.append(outputs[0]))
    run_text_model(dense, *sequences.alone(1))
    each = [
        load_balancing_loss_func((logits,), EXPERTS, CHOSEN) / CHOSEN
        + ROUTER_Z_WEIGHT * logits.exp().sum(dim=-1).log().square().mean()
        for logits in seen
    ]
    assert len(each) == 4
    torch.testing.assert_close(balance.take(), torch.stack(each).mean())


class Router(nn.Module):
    """Says what it was told."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self) -> tuple[Tensor, Tensor, Tensor]:
        weights, chosen = self.logits.softmax(dim=-1).topk(CHOSEN)
        return self.logits, weights, chosen


def balance_of(logits: Tensor) -> float:
    """Without the z-loss."""
    block = nn.Module()
    block.gate, block.experts = Router(logits), nn.Identity()
    balance = RouterBalance(block)
    block.gate()
    return float(balance.take() - ROUTER_Z_WEIGHT * logits.logsumexp(dim=-1).square().mean())


def test_balance_is_one_where_all_experts_are_asked_alike_and_four_where_the_same_two_of_eight_are() -> None:
    pairs = torch.eye(EXPERTS) + torch.eye(EXPERTS).roll(1, dims=0)
    assert balance_of(40 * pairs) == pytest.approx(1)
    assert balance_of(40 * pairs[:1].expand(EXPERTS, -1)) == pytest.approx(4)


def test_the_last_forward_counts_that_something_is_learnt_from(dense: nn.Module, sequences: Sequences) -> None:
    balance = RouterBalance(dense)
    run_text_model(dense, *sequences.alone(2))
    run_text_model(dense, *sequences.alone(0))
    with torch.no_grad():
        run_text_model(dense, *sequences.alone(1))
    learnt = balance.take()
    run_text_model(dense, *sequences.alone(0))
    torch.testing.assert_close(balance.take(), learnt)
