"""A state on disk is whole, and brings everything back."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest
import torch
from torch import nn

from recipes.nano.training.settings import TrainingSettings
from recipes.nano.training.state import Learner, Standing, load_state, save_state
from recipes.nano.training.step import Optimiser

SETTINGS = TrainingSettings(steps=1, learning_rate=0.1)


def learner(value: float) -> Learner:
    module = nn.Linear(64, 64)
    nn.init.constant_(module.weight, value)
    return Learner({"module": module}, Optimiser([*module.parameters()], SETTINGS), torch.full((2,), value))


def standing(steps: int) -> Standing:
    return Standing(steps, 10.0 * steps, Random(steps))  # noqa: S311 - nothing here is secret


def save_and_be_killed_while_saving_again(file: Path) -> None:
    save_state(file, learner(1.0), standing(1))
    whole = torch.save

    def half(content: object, unfinished: Path) -> None:
        whole(content, unfinished)
        os.truncate(unfinished, unfinished.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    with patch("torch.save", half):
        save_state(file, learner(2.0), standing(2))


def test_a_state_is_whole_even_after_a_kill(tmp_path: Path) -> None:
    file = tmp_path / "state" / "lesson.pt"
    code = f"from {__name__} import *; save_and_be_killed_while_saving_again(Path({str(file)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert len(list(file.parent.iterdir())) == 2, "the half of a state lies there, too"
    found = learner(0.0)
    at = load_state(file, found)
    assert (at.steps, at.seconds, at.roll.random()) == (1, 10.0, standing(1).roll.random())
    assert (found.modules["module"].get_parameter("weight") == 1).all()
    assert (found.averages == 1).all()
    save_state(file, learner(3.0), at)
    assert [one.name for one in file.parent.iterdir()] == ["lesson.pt"]


def test_no_state_is_no_file_to_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "lesson.pt", learner(0.0))
