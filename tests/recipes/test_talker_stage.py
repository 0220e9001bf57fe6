"""The stage leaves a Talker that the others can take, learns nothing that is held out, and does nothing twice."""

import shutil
from pathlib import Path

import pytest
import torch

from recipes.nano.configuration import Recipe, read_recipe
from recipes.nano.domain.settings import CorpusSettings
from recipes.nano.domain.splits import held_out_of_speech
from recipes.nano.errors import RecipeError
from recipes.nano.folders import WorkFolder
from recipes.nano.model.architecture import build_model, config_for
from recipes.nano.model.parts import load_part, save_part
from recipes.nano.speech.store import shard_path
from recipes.nano.talker import stage
from recipes.nano.talker.codes import Coded, write_codes
from tests.recipes.talker_speech import TEXTS, coded, opening, settings, tokenizer
from tests.recipes.thinker_conversations import CPU, NONE
from tests.reference.transformers_reference import TransformersReference

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def recipe() -> Recipe:
    """Typed conversations and pictures only: they need no synthesiser."""
    smoke = read_recipe(Path(stage.__file__).parents[1] / "configs" / "smoke.toml")
    counts = NONE.model_copy(update={"typed": 6, "image": 4})
    training = {"steps": 2, "learning_rate": 1e-4}
    talker = settings(training=training, user_prompts=8, held_out_utterances=2, from_shipped=True)
    return smoke.model_copy(update={"corpus": CorpusSettings(training=counts, held_out=counts), "talker": talker})


@pytest.fixture
def folder(tmp_path: Path, nano: Path, nano_reference: TransformersReference) -> WorkFolder:
    folder = WorkFolder(tmp_path)
    folder.tokenizer.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(nano / name, folder.tokenizer / name)
    save_part(folder.thinker, nano_reference.model, "thinker.")
    write_codes(shard_path(folder.codes, 0), coded())
    return folder


def test_what_it_writes_is_a_talker_near_the_shipped_one(
    recipe: Recipe, folder: WorkFolder, nano_reference: TransformersReference
) -> None:
    stage.run(recipe, folder)
    model = build_model(config_for(folder.tokenizer), seed=0)
    assert load_part(folder.talker, model, "talker.") == {}
    shipped = nano_reference.model.talker.state_dict()
    moved = [(tensor - shipped[name]).abs().max() for name, tensor in model.talker.state_dict().items()]
    assert 0 < torch.stack(moved).max() < 0.01


def test_a_talker_that_is_there_stays(recipe: Recipe, tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path)
    folder.talker.write_bytes(b"trained before")
    stage.run(recipe, folder)
    assert folder.talker.read_bytes() == b"trained before"


def test_it_needs_a_thinker(recipe: Recipe, folder: WorkFolder) -> None:
    folder.thinker.unlink()
    with pytest.raises(RecipeError, match=r"thinker\.safetensors: expected the tensors"):
        stage.run(recipe, folder)


def test_it_needs_coded_speech(recipe: Recipe, folder: WorkFolder) -> None:
    shard_path(folder.codes, 0).unlink()
    with pytest.raises(RecipeError, match="no coded speech to learn from"):
        stage.run(recipe, folder)


def sizes(recipe: Recipe, folder: WorkFolder, nano: Path) -> tuple[int, int]:
    """Utterances to learn from, and those that are held out."""
    speech = stage.speech_to_learn(recipe.talker, folder, tokenizer(nano), CPU)
    return speech.training.size, speech.held_out.size


def test_sentences_that_are_held_out_are_not_learnt(recipe: Recipe, folder: WorkFolder, nano: Path) -> None:
    kept_back = [text for text in (f"Say {number}." for number in range(1000)) if held_out_of_speech(text)][:3]
    assert not any(map(held_out_of_speech, TEXTS))
    write_codes(shard_path(folder.codes, 1), coded(kept_back))
    assert sizes(recipe, folder, nano) == (len(TEXTS), 2)


def test_a_run_too_small_to_hold_anything_out_is_measured_by_what_it_learns(
    recipe: Recipe, folder: WorkFolder, nano: Path
) -> None:
    assert sizes(recipe, folder, nano) == (len(TEXTS), 2)


def test_a_voice_that_nano_does_not_have_is_named(recipe: Recipe, folder: WorkFolder, nano: Path) -> None:
    write_codes(shard_path(folder.codes, 1), [Coded("Red.", "kal", coded()[0].codes)])
    with pytest.raises(RecipeError, match="kal"):
        sizes(recipe, folder, nano)


def test_every_voice_has_a_speaker_of_its_own(nano: Path, nano_reference: TransformersReference) -> None:
    ids = opening(nano_reference.model, nano).speakers
    known = nano_reference.model.config.talker_config.speaker_id
    assert dict(zip(stage.SPEAKERS.values(), ids, strict=True)) == known
