"""The stage leaves a Thinker that the others can take, goes on from the shipped one, and does nothing twice."""

import shutil
from pathlib import Path

import pytest
import torch

from recipes.nano.configuration import Recipe, read_recipe
from recipes.nano.domain.settings import CorpusSettings
from recipes.nano.errors import RecipeError
from recipes.nano.folders import WorkFolder
from recipes.nano.model.architecture import build_model, config_for
from recipes.nano.model.parts import load_part
from recipes.nano.thinker import stage
from tests.recipes.thinker_conversations import NONE, settings
from tests.reference.transformers_reference import TransformersReference

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def recipe() -> Recipe:
    """Typed conversations and pictures only: they need no synthesiser."""
    smoke = read_recipe(Path(stage.__file__).parents[1] / "configs" / "smoke.toml")
    counts = NONE.model_copy(update={"typed": 6, "image": 4})
    thinker = settings(batch={"typed": 2, "image": 1}, from_shipped=True)
    return smoke.model_copy(update={"corpus": CorpusSettings(training=counts, held_out=counts), "thinker": thinker})


@pytest.fixture
def folder(tmp_path: Path, nano: Path) -> WorkFolder:
    folder = WorkFolder(tmp_path)
    folder.tokenizer.mkdir()
    for name in TOKENIZER_FILES:
        shutil.copy(nano / name, folder.tokenizer / name)
    return folder


def test_what_it_writes_is_a_thinker_near_the_shipped_one(
    recipe: Recipe, folder: WorkFolder, nano_reference: TransformersReference
) -> None:
    stage.run(recipe, folder)
    model = build_model(config_for(folder.tokenizer), seed=0)
    others = load_part(folder.thinker, model, "thinker.")
    assert sorted(others) == ["ctc.bias", "ctc.weight"]
    shipped = nano_reference.model.thinker.state_dict()
    moved = [(tensor - shipped[name]).abs().max() for name, tensor in model.thinker.state_dict().items()]
    assert 0 < torch.stack(moved).max() < 0.01


def test_a_thinker_that_is_there_stays(recipe: Recipe, tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path)
    folder.thinker.write_bytes(b"trained before")
    stage.run(recipe, folder)
    assert folder.thinker.read_bytes() == b"trained before"


def test_the_shipped_thinker_needs_the_shipped_tokenizer(recipe: Recipe, folder: WorkFolder) -> None:
    file = folder.tokenizer / "tokenizer.json"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(RecipeError, match="expected the shipped checkpoint's tokenizer"):
        stage.run(recipe, folder)
