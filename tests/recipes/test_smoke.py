"""The whole recipe, as a reader runs it: from nothing to a checkpoint that loads, answers and speaks."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import which

import pytest
from transformers import Qwen3OmniMoeForConditionalGeneration

from antiphon.model.config import OmniConfig
from recipes.nano.folders import WorkFolder

REPOSITORY = Path(__file__).parents[2]
SMOKE = REPOSITORY / "recipes" / "nano" / "configs" / "smoke.toml"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not (which("flite") and which("espeak-ng")), reason="needs flite and espeak-ng"),
]


def run(command: str, work: Path) -> str:
    """What it showed; two cores are kept from hindering each other."""
    line = [sys.executable, "-m", "recipes.nano", command, "--config", str(SMOKE), "--work", str(work)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def written(folder: WorkFolder) -> Mapping[Path, int]:
    return {file: file.stat().st_mtime_ns for file in folder.root.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> WorkFolder:
    folder = WorkFolder(tmp_path_factory.mktemp("smoke"))
    run("all", folder.root)
    return folder


def test_the_checkpoint_loads_in_transformers_without_a_tensor_missing(folder: WorkFolder) -> None:
    _, loaded = Qwen3OmniMoeForConditionalGeneration.from_pretrained(folder.checkpoint, output_loading_info=True)
    assert not loaded["missing_keys"]
    assert not loaded["unexpected_keys"]


def test_the_checkpoint_is_of_the_shape_of_the_shipped_one(folder: WorkFolder, nano: Path) -> None:
    made, shipped = (OmniConfig.from_checkpoint(checkpoint) for checkpoint in (folder.checkpoint, nano))
    assert made.require_talker().code_groups == shipped.require_talker().code_groups


def test_the_evaluation_leaves_a_report(folder: WorkFolder) -> None:
    assert json.loads(folder.report.read_text())


def test_a_second_run_leaves_everything_as_it_is(folder: WorkFolder) -> None:
    before = written(folder)
    run("all", folder.root)
    assert written(folder) == before


def test_a_stage_whose_result_is_lost_goes_on_from_its_state(folder: WorkFolder) -> None:
    folder.talker.unlink()
    assert "goes on after 4 steps" in run("talker", folder.root)
    assert folder.talker.exists()
