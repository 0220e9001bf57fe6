"""A randomly drawn nano, with the ids of the checkpoint that ships with the repository."""

from functools import cache
from pathlib import Path
from typing import Any

from recipes.nano.model.architecture import build_model, config_for


@cache
def random_nano(checkpoint: Path) -> Any:
    """transformers' model; tests must not change it."""
    return build_model(config_for(checkpoint), seed=5).eval()
