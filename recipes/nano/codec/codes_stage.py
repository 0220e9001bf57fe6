"""The stage between codec and Talker: answers as codes."""

from recipes.nano.configuration import Recipe
from recipes.nano.folders import WorkFolder

from .answers import encode_answers


def run(_: Recipe, folder: WorkFolder) -> None:
    """Raises RecipeError where the codec is missing."""
    encode_answers(folder)
