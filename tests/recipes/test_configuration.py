"""A configuration says everything, and says it wrongly only once."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from recipes.nano.__main__ import app
from recipes.nano.configuration import read_recipe
from recipes.nano.errors import RecipeError
from recipes.nano.stages import STAGES

CONFIGS = Path(__file__).parents[2] / "recipes" / "nano" / "configs"
# What must be there before a stage can do its work.
NEEDS = {
    "codec": {"speech", "tokenizer"},
    "codes": {"speech", "codec"},
    "thinker": {"speech", "tokenizer"},
    "talker": {"codes", "thinker"},
    "assemble": {"tokenizer", "codec", "thinker", "talker"},
    "evaluate": {"assemble"},
}


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.toml")), ids=lambda file: file.stem)
def test_every_stage_of_a_shipped_configuration_finds_what_it_needs(file: Path) -> None:
    done = set[str]()
    for stage in read_recipe(file).stages:
        assert done >= NEEDS.get(stage, set()), f"{stage} comes too early"
        done |= {"tokenizer", "codec", "thinker"} if stage == "shipped" else {stage}
    assert done >= {"assemble", "evaluate"}


def test_a_file_says_only_how_it_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'extends = "{CONFIGS / "gpu.toml"}"\n[speech]\nanswers = 7\n')
    mine, base = read_recipe(tmp_path / "mine.toml"), read_recipe(CONFIGS / "gpu.toml")
    assert mine.speech.answers == 7
    assert mine.model_copy(update={"speech": base.speech}) == base


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[speech]\nanswer = 7", "speech.answer"),
        ("[talker.training]\nlearning_rate = -1.0", "talker.training.learning_rate"),
        ('stages = ["sing"]', "stages"),
        ("[speech", "expected settings in TOML"),
        ('extends = "no.toml"', "no.toml"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "mine.toml"
    extends = "" if "extends" in text else f'extends = "{CONFIGS / "smoke.toml"}"\n'
    file.write_text(extends + text)
    with pytest.raises(RecipeError, match=complaint) as raised:
        read_recipe(file)
    assert str(tmp_path) in str(raised.value)


def test_the_command_line_has_every_stage_and_ends_with_what_to_mend(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["--help"]).output
    assert all(stage in listed for stage in (*STAGES, "all"))
    refused = CliRunner().invoke(app, ["all", "--config", str(tmp_path / "none.toml"), "--work", str(tmp_path)])
    assert refused.exit_code == 1
    assert "none.toml" in refused.output
