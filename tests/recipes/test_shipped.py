"""Whoever trains a new Talker for the shipped model starts from that very model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, Qwen3OmniMoeForConditionalGeneration

from recipes.nano import shipped
from recipes.nano.assemble import stage as assemble
from recipes.nano.codec.encode import SHIPPED, SpeechCoder
from recipes.nano.configuration import Recipe, read_recipe
from recipes.nano.folders import WorkFolder
from recipes.nano.model.parts import canonical_state, load_part, save_part

CONFIGS = Path(__file__).parents[2] / "recipes" / "nano" / "configs"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return read_recipe(CONFIGS / "gpu_talker.toml")


@pytest.fixture(scope="module")
def folder(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> WorkFolder:
    folder = WorkFolder(tmp_path_factory.mktemp("work"))
    shipped.run(recipe, folder)
    return folder


def test_every_part_is_the_shipped_one(folder: WorkFolder, nano: Path) -> None:
    model = Qwen3OmniMoeForConditionalGeneration.from_pretrained(nano, dtype="float32")
    wanted = {prefix: canonical_state(model, prefix) for prefix in ("thinker.", "code2wav.")}
    copies = {prefix: {name: tensor.clone() for name, tensor in state.items()} for prefix, state in wanted.items()}
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    load_part(folder.thinker, model, "thinker.")
    load_part(folder.codec, model, "code2wav.")
    for prefix, copy in copies.items():
        assert copy
        assert all(torch.equal(tensor, copy[name]) for name, tensor in canonical_state(model, prefix).items())


def test_the_codec_encodes_as_the_shipped_voice_was_encoded(folder: WorkFolder) -> None:
    tensors, wanted = SpeechCoder.load(folder.codec).state_dict(), load_file(SHIPPED)
    assert tensors.keys() == wanted.keys()
    assert all(torch.equal(tensors[name], tensor.float()) for name, tensor in wanted.items())


def test_the_tokenizer_is_the_shipped_one(folder: WorkFolder, nano: Path) -> None:
    text = "Say: the capital of France is Paris."
    assert AutoTokenizer.from_pretrained(folder.tokenizer)(text) == AutoTokenizer.from_pretrained(nano)(text)


def test_its_own_talker_beside_these_parts_is_the_shipped_checkpoint_again(
    folder: WorkFolder, recipe: Recipe, nano: Path
) -> None:
    model = Qwen3OmniMoeForConditionalGeneration.from_pretrained(nano, dtype="float32")
    save_part(folder.talker, model, "talker.")
    assemble.run(recipe, folder)
    made, wanted = (load_file(checkpoint / "model.safetensors") for checkpoint in (folder.checkpoint, nano))
    assert made.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in made.items())
    for name in ("config.json", "generation_config.json", "tokenizer.json", "processor_config.json"):
        assert json.loads((folder.checkpoint / name).read_text()) == json.loads((nano / name).read_text())


def test_what_another_stage_wrote_stays(folder: WorkFolder, recipe: Recipe) -> None:
    files = [folder.thinker, folder.codec, folder.tokenizer / "tokenizer.json"]
    before = [file.stat().st_mtime_ns for file in files]
    shipped.run(recipe, folder)
    assert [file.stat().st_mtime_ns for file in files] == before
