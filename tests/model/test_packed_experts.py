"""Whatever experts are held, and however they are stored, their pairs have the bits of all experts together."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from antiphon.model.config import DecoderConfig, OmniConfig
from antiphon.model.expert_fingerprint import expert_fingerprint
from antiphon.model.expert_weights import ExpertReader
from antiphon.model.kernels.packed_experts import PackedPairs, summed_pairs, weighted_pairs
from antiphon.model.kernels.plain_experts import LocalExperts
from antiphon.model.weights import Checkpoint, load_experts

PREFIX = "thinker.model."
TYPES = [torch.float32, torch.bfloat16]


def text_config(checkpoint: Path) -> DecoderConfig:
    return OmniConfig.from_checkpoint(checkpoint).thinker.text


def reader(checkpoint: Path, dtype: torch.dtype) -> ExpertReader:
    return ExpertReader.of(Checkpoint(checkpoint), PREFIX, text_config(checkpoint), dtype, torch.device("cpu"))


def all_experts(checkpoint: Path, layer: int, dtype: torch.dtype) -> LocalExperts:
    place = f"{PREFIX}layers.{layer}.mlp.experts."
    return LocalExperts(*load_experts(Checkpoint(checkpoint), place, 0, text_config(checkpoint).experts, dtype=dtype))


def routed(config: DecoderConfig, rows: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights, expert_ids = torch.randn(rows, config.experts, generator=generator).topk(config.experts_per_token)
    hidden = torch.randn(rows, config.width, generator=generator)
    return hidden.to(dtype), expert_ids, weights.softmax(-1).to(dtype)


@pytest.mark.parametrize("checkpoint_name", ["nano", "tiny_checkpoint"])
@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 40), owners=st.lists(st.integers(0, 3), min_size=8, max_size=8), seed=st.integers(0, 99))
@torch.inference_mode()
def test_parts_of_the_experts_have_the_bits_of_all(
    request: pytest.FixtureRequest, checkpoint_name: str, dtype: torch.dtype, rows: int, owners: list[int], seed: int
) -> None:
    checkpoint: Path = request.getfixturevalue(checkpoint_name)
    config, layer = text_config(checkpoint), seed % text_config(checkpoint).layers
    hidden, expert_ids, weights = routed(config, rows, dtype, seed)
    expected = all_experts(checkpoint, layer, dtype)(hidden, expert_ids, weights)
    flat, top_k = expert_ids.flatten().tolist(), config.experts_per_token
    slots, sums = torch.zeros(len(flat), config.width, dtype=dtype), torch.zeros(rows, config.width)
    for owner in sorted(set(owners)):
        held = reader(checkpoint, dtype).read(layer, [expert for expert in range(8) if owners[expert] == owner])
        places = torch.tensor([place for place, expert in enumerate(flat) if expert in held], dtype=torch.int64)
        if not len(places):
            continue
        experts = [flat[place] for place in places.tolist()]
        pairs = PackedPairs(hidden, (places // top_k).to(torch.int32), experts, weights.flatten()[places], len(flat))
        slots[places] = weighted_pairs(held, pairs, torch.empty(len(places), config.width, dtype=dtype))
        sums += summed_pairs(held, pairs, torch.empty(rows, config.width))
    assert torch.equal(slots.view(rows, top_k, -1).sum(1), expected)
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-3}
    torch.testing.assert_close(sums.to(dtype), expected, **tolerance)


def test_experts_stay_on_disk_in_the_type_that_they_have_there(nano: Path) -> None:
    mapped, copied = reader(nano, torch.bfloat16).read(0, [3])[3], reader(nano, torch.float32).read(0, [3])[3]
    assert all(is_in_a_file(tensor) for tensor in (*mapped.gate_up, mapped.down))
    assert not any(is_in_a_file(tensor) for tensor in (*copied.gate_up, copied.down))


def test_experts_that_would_round_otherwise_apart_are_copied(nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.model.expert_weights.parts_keep_bits", lambda *_: False)
    (gate_up,) = reader(nano, torch.bfloat16).read(0, [3])[3].gate_up
    assert gate_up.shape == (text_config(nano).width, 2 * text_config(nano).expert_width)
    assert not is_in_a_file(gate_up)


def is_in_a_file(tensor: Tensor) -> bool:
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, stop = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= tensor.data_ptr() < stop:
            return line.endswith(".safetensors")
    return False


@pytest.mark.parametrize("matrix", ["gate_proj", "up_proj", "down_proj"])
def test_a_fingerprint_tells_other_values_of_the_same_shape_apart(
    nano: Path, matrix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = expert_fingerprint(Checkpoint(nano), PREFIX, text_config(nano))
    load = Checkpoint.load

    def changed(checkpoint: Checkpoint, names: Iterable[str], **options: Any) -> dict[str, torch.Tensor]:
        return {
            name: value + 1 if f"layers.2.mlp.experts.2.{matrix}" in name else value
            for name, value in load(checkpoint, names, **options).items()
        }

    monkeypatch.setattr(Checkpoint, "load", changed)
    assert expert_fingerprint(Checkpoint(nano), PREFIX, text_config(nano)) != before


def test_a_fingerprint_tells_models_apart(nano: Path, tiny_checkpoint: Path) -> None:
    prints = {expert_fingerprint(Checkpoint(each), PREFIX, text_config(each)) for each in (nano, tiny_checkpoint)}
    assert len(prints) == 2
    again = expert_fingerprint(Checkpoint(nano), PREFIX, text_config(nano))
    assert again in prints
