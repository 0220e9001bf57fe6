"""Each role reads its own tensors from either layout, and refuses in one sentence what does not fit."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from antiphon.errors import CheckpointError
from antiphon.model.config import OmniConfig
from antiphon.model.talker import Talker
from antiphon.model.thinker import Thinker
from antiphon.model.weights import Checkpoint
from tests.model.packed_steps import PackedSequence, PackedSteps

EXPERTS = ".mlp.experts."


@pytest.fixture(scope="module")
def tensors(tiny_checkpoint) -> dict[str, Tensor]:
    files = sorted(tiny_checkpoint.glob("*.safetensors"))
    assert len(files) > 1, "the tiny checkpoint is meant to be sharded"
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


@pytest.fixture
def single_file(tiny_checkpoint, tensors, tmp_path) -> Callable[[dict[str, Tensor]], Path]:
    """Writes some tensors as a checkpoint of one file."""

    def write(kept: dict[str, Tensor]) -> Path:
        shutil.copy(tiny_checkpoint / "config.json", tmp_path)
        save_file(kept, tmp_path / "model.safetensors")
        return tmp_path

    return write


def _thinker(directory: Path, **options) -> Thinker:
    return Thinker.load(Checkpoint(directory), OmniConfig.from_checkpoint(directory), dtype=torch.float32, **options)


def _talker(directory: Path) -> Talker:
    return Talker.load(Checkpoint(directory), OmniConfig.from_checkpoint(directory), dtype=torch.float32)


def _final_rows(thinker: Thinker, directory: Path) -> Tensor:
    steps = PackedSteps(OmniConfig.from_checkpoint(directory).thinker.text)
    with torch.inference_mode():
        rows, positions = thinker.embed(torch.arange(12)), torch.arange(12.0).expand(3, -1)
        return thinker.forward(rows, positions, steps.batch([(PackedSequence(), 12)]), steps.keys_values).final


def test_one_file_and_shards_load_the_same(tiny_checkpoint, tensors, single_file):
    directory = single_file(tensors)
    assert torch.equal(
        _final_rows(_thinker(directory), directory), _final_rows(_thinker(tiny_checkpoint), tiny_checkpoint)
    )


def test_the_thinker_reads_its_own_tensors_only(tensors, single_file):
    kept = {n: t for n, t in tensors.items() if n.startswith(("thinker.model.", "thinker.lm_head."))}
    _thinker(single_file(kept))


def test_the_talker_reads_its_own_tensors_and_the_token_embedding(tensors, single_file):
    kept = {n: t for n, t in tensors.items() if n.startswith("talker.") or n == "thinker.model.embed_tokens.weight"}
    _talker(single_file(kept))


def test_the_trunk_loads_without_touching_an_expert(tiny_checkpoint, tensors, single_file):
    """Experts from elsewhere: the checkpoint need not even hold them."""
    asked: list[int] = []

    def elsewhere(layer: int):
        asked.append(layer)
        return lambda hidden, expert_ids, weights: torch.zeros_like(hidden)

    directory = single_file({n: t for n, t in tensors.items() if EXPERTS not in n})
    _final_rows(_thinker(directory, experts=elsewhere), directory)
    assert asked == list(range(5))
    with pytest.raises(CheckpointError, match=r"lacks thinker.model.layers.0.mlp.experts.0.gate_proj.weight"):
        _thinker(directory)


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (_thinker, "thinker.model.layers.3.self_attn.k_proj.weight"),
        (_thinker, "thinker.model.layers.0.self_attn.q_norm.weight"),
        (_thinker, "thinker.model.layers.4.mlp.experts.7.down_proj.weight"),
        (_thinker, "thinker.lm_head.weight"),
        (_thinker, "thinker.model.norm.weight"),
        (_talker, "thinker.model.embed_tokens.weight"),
        (_talker, "talker.model.layers.2.mlp.shared_expert_gate.weight"),
        (_talker, "talker.model.codec_embedding.weight"),
        (_talker, "talker.hidden_projection.linear_fc2.bias"),
        (_talker, "talker.codec_head.weight"),
        (_talker, "talker.code_predictor.lm_head.14.weight"),
        (_talker, "talker.code_predictor.model.codec_embedding.0.weight"),
        (_talker, "talker.code_predictor.model.layers.1.mlp.up_proj.weight"),
    ],
)
def test_a_missing_tensor_is_named(tensors, single_file, load, name):
    directory = single_file({n: t for n, t in tensors.items() if n != name})
    with pytest.raises(CheckpointError, match=rf"lacks {re.escape(name)}.*Use a complete checkpoint"):
        load(directory)


@pytest.mark.parametrize(
    "name",
    [
        "thinker.model.layers.1.self_attn.o_proj.weight",
        "thinker.model.layers.1.self_attn.k_norm.weight",
        "thinker.model.layers.1.self_attn.v_proj.weight",
        "thinker.model.layers.1.mlp.experts.2.up_proj.weight",
        "thinker.model.layers.1.mlp.gate.weight",
        "thinker.model.embed_tokens.weight",
    ],
)
def test_a_tensor_of_another_shape_is_refused(tensors, single_file, name):
    directory = single_file({**tensors, name: tensors[name].flatten()[:-2].unsqueeze(0).contiguous()})
    with pytest.raises(CheckpointError, match=r"shape|experts"):
        _thinker(directory)


def test_more_layers_than_the_configuration_names_are_refused(tiny_checkpoint):
    config = OmniConfig.from_checkpoint(tiny_checkpoint)
    text = replace(config.thinker.text, layers=4)
    shallow = replace(config, talker=None, thinker=replace(config.thinker, text=text))
    with pytest.raises(CheckpointError, match=r"asks for 4 layers, but there is also thinker\.model\.layers\.4\."):
        Thinker.load(Checkpoint(tiny_checkpoint), shallow, dtype=torch.float32)


def _with_config(tiny_checkpoint: Path, tmp_path: Path, change: Callable[[dict], None]) -> Path:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    change(config["thinker_config"]["text_config"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention_bias", True),
        ("hidden_act", "gelu"),
        ("mlp_only_layers", [0]),
        ("decoder_sparse_step", 2),
        ("num_attention_heads", 5),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e6, "mrope_section": [4, 2, 2]}),
    ],
)
def test_a_variant_that_is_not_computed_is_refused(tiny_checkpoint, tmp_path, key, value):
    directory = _with_config(tiny_checkpoint, tmp_path, lambda text: text.update({key: value}))
    with pytest.raises(CheckpointError, match=r"thinker_config\.text_config\.(\w|\.)+ is .*; only .* is supported"):
        OmniConfig.from_checkpoint(directory)


def test_sections_that_do_not_fill_a_head_are_refused(tiny_checkpoint):
    config = OmniConfig.from_checkpoint(tiny_checkpoint)
    text = replace(config.thinker.text, mrope_sections=(4, 2, 1))
    wrong = replace(config, thinker=replace(config.thinker, text=text))
    with pytest.raises(CheckpointError, match=r"add up to half the head width, 8; found \[4, 2, 1\]"):
        Thinker.load(Checkpoint(tiny_checkpoint), wrong, dtype=torch.float32)


def test_a_shard_that_was_not_copied_is_named(tiny_checkpoint, tmp_path):
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    lost = sorted((tmp_path / "copy").glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=f"the index names {lost.name}, which is not there. Copy all shards"):
        Checkpoint(tmp_path / "copy")


def test_a_directory_without_weights_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors"):
        Checkpoint(tmp_path)
