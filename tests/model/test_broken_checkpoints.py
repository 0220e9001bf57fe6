"""A checkpoint that is damaged, incomplete or of another model is refused in a sentence that names what is wrong."""

import json
import shutil

import pytest
import torch

from antiphon.errors import CheckpointError
from antiphon.model.config import OmniConfig
from antiphon.model.weights import Checkpoint


@pytest.mark.parametrize("text", ["[]", "7", "null", '"config"', "{", '{"thinker_config": []}', "\udcff"])
def test_a_configuration_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(CheckpointError, match=r"config\.json: expected"):
        OmniConfig.from_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("text_config", "hidden_size", "wide"),
        ("text_config", "hidden_size", True),
        ("text_config", "rms_norm_eps", None),
        ("text_config", "rope_parameters", {"rope_theta": "far", "mrope_section": [4, 2, 2]}),
        ("text_config", "rope_parameters", {"rope_theta": 1e6, "mrope_section": ["a", 2, 2]}),
        ("text_config", "rope_parameters", {"rope_theta": 1e6, "mrope_section": 8}),
        ("text_config", "rope_parameters", [1]),
        ("vision_config", "deepstack_visual_indexes", ["first"]),
        ("vision_config", "deepstack_visual_indexes", 3),
    ],
)
def test_a_value_of_another_kind_is_refused_by_its_name(tiny_checkpoint, tmp_path, section, key, value):
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["thinker_config"][section][key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"config\.json: expected thinker_config\.{section}\.(rope_\w+|{key})"):
        OmniConfig.from_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (("thinker_config", "audio_config"), "n_window", 25),
        (("thinker_config", "audio_config"), "activation_function", "relu"),
        (("thinker_config", "vision_config"), "hidden_act", "gelu"),
        (("thinker_config", "text_config"), "use_sliding_window", True),
        (("code2wav_config",), "attention_bias", True),
    ],
)
def test_an_encoder_or_codec_that_is_not_computed_is_refused(tiny_checkpoint, tmp_path, section, key, value):
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    part = config
    for name in section:
        part = part[name]
    part[key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=rf"{'.'.join(section)}\.{key} is {value!r}; only .* is supported"):
        OmniConfig.from_checkpoint(tmp_path)


@pytest.mark.parametrize("speakers", [["ethan"], {"ethan": "low"}, {}, None])
def test_speakers_that_are_none_are_refused(tiny_checkpoint, tmp_path, speakers):
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["talker_config"]["speaker_id"] = speakers
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json: expected talker_config\.speaker_id"):
        OmniConfig.from_checkpoint(tmp_path)


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": []}', '{"weight_map": null}', "{"])
def test_an_index_that_is_none_is_refused(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors"):
        Checkpoint(tmp_path)


def test_a_shard_that_was_copied_in_part_is_named(tiny_checkpoint, tmp_path):
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    shard = json.loads((tmp_path / "copy" / "model.safetensors.index.json").read_text())["weight_map"][
        "thinker.model.norm.weight"
    ]
    whole = (tmp_path / "copy" / shard).read_bytes()
    (tmp_path / "copy" / shard).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=rf"{shard}: expected .*thinker\.model\.norm\.weight.*Copy it again"):
        Checkpoint(tmp_path / "copy").load(["thinker.model.norm.weight"], dtype=torch.float32)


def test_a_tensor_that_the_index_puts_into_another_shard_is_named(tiny_checkpoint, tmp_path):
    shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    file = tmp_path / "copy" / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    own = index["weight_map"]["thinker.model.norm.weight"]
    other = next(shard for shard in index["weight_map"].values() if shard != own)
    index["weight_map"]["thinker.model.norm.weight"] = other
    file.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=rf"{other}: expected thinker\.model\.norm\.weight"):
        Checkpoint(tmp_path / "copy").load(["thinker.model.norm.weight"], dtype=torch.float32)
