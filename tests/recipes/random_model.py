"""A randomly drawn nano, with the ids of the checkpoint that ships with the repository."""

from functools import cache
from pathlib import Path
from typing import Any

from recipes.nano.model.architecture import build_model, nano_config
from recipes.nano.tokenizer.special_tokens import SpecialTokens

VOCABULARY_SIZE = 1472


@cache
def random_nano(checkpoint: Path) -> Any:
    """transformers' model; tests must not change it."""
    return build_model(nano_config(SpecialTokens.from_folder(checkpoint), VOCABULARY_SIZE), seed=5).eval()
