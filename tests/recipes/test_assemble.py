"""Parts become a checkpoint that plain transformers and Antiphon load, and that both read the same."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoTokenizer, Qwen3OmniMoeForConditionalGeneration

from recipes.nano.assemble.checkpoint import is_up_to_date, write_checkpoint
from recipes.nano.assemble.settings import AssembleSettings
from recipes.nano.errors import RecipeError
from recipes.nano.folders import WorkFolder
from recipes.nano.model.parts import save_part
from services.talker.speech_sampling import checkpoint_sampling
from tests.end_to_end.conversations import film, picture, sound, user
from tests.end_to_end.platform import Platform
from tests.recipes.random_model import random_nano
from tests.reference.reference_inputs import Part, ReferenceInputs
from tests.reference.transformers_reference import TransformersReference

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja")
WHAT_ONLY_TRAINING_NEEDS = {"ctc.weight": torch.ones(2, 2), "encoder.latent.weight": torch.ones(2, 2)}


def parts_of_a_random_model(nano: Path, root: Path) -> WorkFolder:
    """A work folder as the stages leave it, with the shipped tokenizer."""
    folder, model = WorkFolder(root), random_nano(nano)
    folder.tokenizer.mkdir()
    for name in TOKENIZER_FILES:
        (folder.tokenizer / name).write_bytes((nano / name).read_bytes())
    save_part(folder.thinker, model, "thinker.", WHAT_ONLY_TRAINING_NEEDS)
    save_part(folder.talker, model, "talker.")
    save_part(folder.codec, model, "code2wav.", WHAT_ONLY_TRAINING_NEEDS)
    return folder


@pytest.fixture(scope="module")
def exact(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in float32, so that nothing is rounded."""
    folder = parts_of_a_random_model(nano, tmp_path_factory.mktemp("exact"))
    write_checkpoint(folder, AssembleSettings(dtype="float32"))
    return folder.checkpoint


@pytest.fixture(scope="module")
def reference(exact: Path) -> TransformersReference:
    return TransformersReference(exact)


@pytest.fixture(scope="module")
def platform(exact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(exact, tmp_path_factory.mktemp("sockets"), max_frames=10) as platform:
        yield platform


def test_transformers_finds_every_weight_where_it_was(reference: TransformersReference, nano: Path) -> None:
    drawn, loaded = random_nano(nano).state_dict(), reference.model.state_dict()
    assert loaded.keys() == drawn.keys()
    assert [name for name in drawn if not torch.equal(drawn[name], loaded[name])] == []


@pytest.mark.parametrize(
    "parts",
    [("say red",), (sound(1.7), "what do you hear"), (picture(128, 128), "see"), (film(4, 96, 96), sound(2.3), "both")],
    ids=["typed", "sound", "image", "film and sound"],
)
def test_antiphon_answers_and_speaks_as_transformers_does(
    platform: Platform, reference: TransformersReference, parts: tuple[Part, ...]
) -> None:
    messages = [user(*parts)]
    turn = platform.speak(messages, max_completion_tokens=8)
    truth = reference.generate(ReferenceInputs(reference.checkpoint).build(messages), max_new_tokens=8, max_frames=10)
    assert truth.codes is not None
    assert truth.wave is not None
    assert turn.text_ids == truth.text_ids
    assert turn.codes == truth.codes.tolist()
    assert np.abs(turn.wave - truth.wave.numpy()).max() < 1e-4


def test_the_layout_is_that_of_the_shipped_checkpoint(nano: Path, tmp_path: Path) -> None:
    folder = parts_of_a_random_model(nano, tmp_path)
    write_checkpoint(folder, AssembleSettings())
    assert tensors(folder.checkpoint) == tensors(nano)
    for name in ("config.json", "generation_config.json"):
        assert json.loads((folder.checkpoint / name).read_text()) == json.loads((nano / name).read_text())
    assert {file.name for file in folder.checkpoint.iterdir()} >= {*TOKENIZER_FILES, "model.safetensors"}
    assert len(AutoTokenizer.from_pretrained(folder.checkpoint)) == 1467


def tensors(checkpoint: Path) -> dict[str, tuple[list[int], str]]:
    with safe_open(checkpoint / "model.safetensors", framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return {name: (tensor.get_shape(), tensor.get_dtype()) for name, tensor in slices.items()}


def test_sampling_is_what_the_settings_ask_for(nano: Path, tmp_path: Path) -> None:
    folder = parts_of_a_random_model(nano, tmp_path)
    write_checkpoint(folder, AssembleSettings(talker_temperature=0.5, talker_top_k=7, talker_repetition_penalty=1.02))
    sampling = checkpoint_sampling(folder.checkpoint)
    assert (sampling.temperature, sampling.top_k, sampling.repetition_penalty) == (0.5, 7, 1.02)
    model = Qwen3OmniMoeForConditionalGeneration.from_pretrained(folder.checkpoint)
    assert model.generation_config.eos_token_id == model.config.im_end_token_id


def test_a_part_that_is_missing_is_named_and_nothing_replaced(nano: Path, tmp_path: Path) -> None:
    folder = parts_of_a_random_model(nano, tmp_path)
    write_checkpoint(folder, AssembleSettings())
    folder.talker.unlink()
    with pytest.raises(RecipeError, match=r"talker\.safetensors.* is not there"):
        write_checkpoint(folder, AssembleSettings())
    assert (folder.checkpoint / "model.safetensors").exists()


def test_a_checkpoint_is_old_once_a_part_was_trained_further(nano: Path, tmp_path: Path) -> None:
    folder = parts_of_a_random_model(nano, tmp_path)
    assert not is_up_to_date(folder)
    write_checkpoint(folder, AssembleSettings())
    assert is_up_to_date(folder)
    later = (folder.checkpoint / "model.safetensors").stat().st_mtime + 5
    os.utime(folder.talker, (later, later))
    assert not is_up_to_date(folder)
