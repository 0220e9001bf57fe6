"""Nano's shape is that of the checkpoint which ships, and it begins with activations of a reasonable size."""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open

from recipes.nano.model.architecture import build_model, config_for
from tests.recipes.random_model import random_nano

# What saving adds.
WRITTEN_WITH_WEIGHTS = {"architectures", "dtype"}


def test_configuration_is_the_shipped_one(nano: Path) -> None:
    shipped = json.loads((nano / "config.json").read_text())
    made = json.loads(config_for(nano).to_json_string())
    assert made == {key: value for key, value in shipped.items() if key not in WRITTEN_WITH_WEIGHTS}


def test_model_has_every_parameter_that_ships(nano: Path) -> None:
    with safe_open(nano / "model.safetensors", framework="pt") as shipped:
        counts = [math.prod(shipped.get_slice(name).get_shape()) for name in shipped.keys()]  # noqa: SIM118 - no mapping
    assert sum(parameter.numel() for parameter in random_nano(nano).parameters()) == sum(counts)


def test_a_seed_draws_the_same_model_and_another_seed_another(nano: Path) -> None:
    first, again, other = (build_model(config_for(nano), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name, tensor in first.items() if tensor.dim() > 1 and tensor.is_floating_point()]
    assert len(drawn) > 200
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_building_leaves_the_callers_dice_alone(nano: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    build_model(config_for(nano), seed=1)
    assert torch.equal(torch.rand(3), expected)


@torch.no_grad()
def test_a_fresh_thinker_finds_all_tokens_about_as_likely(nano: Path) -> None:
    thinker = random_nano(nano).thinker
    ids = torch.randint(0, 1450, (2, 64), generator=torch.Generator().manual_seed(2))
    logits = thinker(input_ids=ids).logits
    undecided = math.log(logits.shape[-1])
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert undecided < loss < undecided + 1


@torch.no_grad()
def test_fresh_encoders_tell_inputs_apart(nano: Path) -> None:
    """Where a draw is too small every input gives nearly the same rows, and learning begins late."""
    thinker = random_nano(nano).thinker.model
    sounds = [torch.randn(128, 200, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    heard = [thinker.audio_tower(mel, feature_lens=torch.tensor([200])).last_hidden_state for mel in sounds]
    grid = torch.tensor([[1, 8, 8]])
    pictures = [torch.rand(64, 1536, generator=torch.Generator().manual_seed(seed)) * 2 - 1 for seed in (1, 2)]
    seen = [thinker.visual(patches, grid_thw=grid).pooler_output for patches in pictures]
    for first, second in (heard, seen):
        assert 0.1 < (first - second).std() < 10
