"""Measures the assembled checkpoint and writes the report."""

from recipes.nano.configuration import Recipe
from recipes.nano.folders import WorkFolder


def run(recipe: Recipe, folder: WorkFolder) -> None:
    """Does nothing where the report is there already. Raises RecipeError where a recording is missing."""
    if folder.report.exists():
        return
    # Here, because a machine that only trains needs neither recogniser nor client.
    from recipes.nano.evaluation.measuring import measure_run

    measure_run(recipe, folder).write(folder.report)
