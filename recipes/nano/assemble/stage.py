"""Writes the checkpoint of a run."""

from recipes.nano.configuration import Recipe
from recipes.nano.folders import WorkFolder

from .checkpoint import is_up_to_date, write_checkpoint


def run(recipe: Recipe, folder: WorkFolder) -> None:
    """Again when a part has been trained further since."""
    if not is_up_to_date(folder):
        write_checkpoint(folder, recipe.assemble)
