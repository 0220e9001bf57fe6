"""Parts of a model are saved by one name each, and found again only by a model that they fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes.nano.errors import RecipeError
from recipes.nano.model.architecture import build_model, config_for
from recipes.nano.model.parts import ThinkerParts, canonical_name, load_part, save_part
from tests.recipes.random_model import random_nano


@pytest.fixture
def other(nano: Path) -> Any:
    """A model of the same shape with other weights."""
    return build_model(config_for(nano), seed=6)


@pytest.mark.parametrize(
    ("earlier", "canonical"),
    [
        ("thinker.audio_tower.conv_out.weight", "thinker.model.audio_tower.conv_out.weight"),
        ("thinker.visual.pos_embed.weight", "thinker.model.visual.pos_embed.weight"),
        ("thinker.model.layers.0.mlp.gate.weight", "thinker.model.language_model.layers.0.mlp.gate.weight"),
        ("thinker.lm_head.weight", "thinker.lm_head.weight"),
        ("talker.model.layers.0.mlp.gate.weight", "talker.model.layers.0.mlp.gate.weight"),
        ("code2wav.decoder.0.conv.bias", "code2wav.decoder.0.conv.bias"),
    ],
)
def test_names_of_earlier_releases_become_those_of_5_23(earlier: str, canonical: str) -> None:
    assert canonical_name(earlier) == canonical
    assert canonical_name(canonical) == canonical


def test_names_of_the_installed_release_are_canonical(nano: Path) -> None:
    assert [name for name in random_nano(nano).state_dict() if canonical_name(name) != name] == []


def test_thinker_falls_into_its_parts(nano: Path) -> None:
    thinker = random_nano(nano).thinker
    parts = ThinkerParts.of(thinker)
    assert parts.text_model is thinker.model.language_model
    assert parts.audio_tower is thinker.model.audio_tower
    assert parts.vision_tower is thinker.model.visual
    assert parts.head is thinker.lm_head


@pytest.mark.parametrize("prefix", ["thinker.", "talker.", "code2wav."])
def test_a_saved_part_makes_another_model_the_same_there(nano: Path, other: Any, prefix: str, tmp_path: Path) -> None:
    saved = random_nano(nano).state_dict()
    save_part(tmp_path / "part.safetensors", random_nano(nano), prefix)
    load_part(tmp_path / "part.safetensors", other, prefix)
    for name, tensor in other.state_dict().items():
        if name.startswith(prefix):
            assert torch.equal(tensor, saved[name]), name
    assert any(not torch.equal(tensor, saved[name]) for name, tensor in other.state_dict().items())


def test_other_tensors_come_back(nano: Path, other: Any, tmp_path: Path) -> None:
    head = {"ctc.weight": torch.randn(3, 2)}
    save_part(tmp_path / "part.safetensors", random_nano(nano), "thinker.", head)
    rest = load_part(tmp_path / "part.safetensors", other, "thinker.")
    assert rest.keys() == head.keys()
    assert torch.equal(rest["ctc.weight"], head["ctc.weight"])


def test_what_does_not_fit_is_named(nano: Path, other: Any, tmp_path: Path) -> None:
    file = tmp_path / "part.safetensors"
    with pytest.raises(RecipeError, match="is not there"):
        load_part(file, other, "talker.")
    save_part(file, random_nano(nano), "talker.")
    tensors = load_file(file)
    head = tensors.pop("talker.codec_head.weight")
    save_file(tensors, file)
    with pytest.raises(RecipeError, match=r"does not have talker\.codec_head\.weight\."):
        load_part(file, other, "talker.")
    save_file({**tensors, "talker.codec_head.weight": head[:-1]}, file)
    with pytest.raises(RecipeError, match=r"another shape of talker\.codec_head\.weight\."):
        load_part(file, other, "talker.")
    save_file({**tensors, "talker.codec_head.weight": head, "talker.ears": head.clone()}, file)
    with pytest.raises(RecipeError, match=r"model does not, talker\.ears\."):
        load_part(file, other, "talker.")
