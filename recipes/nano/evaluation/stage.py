"""Measures the assembled checkpoint and writes the report."""

from recipes.nano.configuration import Recipe
from recipes.nano.folders import WorkFolder


def run(recipe: Recipe, folder: WorkFolder) -> None:
    """Again when the checkpoint has been written since. Raises RecipeError where a recording is missing."""
    if _is_up_to_date(folder):
        return
    # Here, because a machine that only trains needs neither recogniser nor client.
    from recipes.nano.evaluation.measuring import measure_run

    measure_run(recipe, folder).write(folder.report)


def _is_up_to_date(folder: WorkFolder) -> bool:
    written = [file.stat().st_mtime_ns for file in folder.checkpoint.glob("*")]
    return folder.report.exists() and folder.report.stat().st_mtime_ns >= max(written, default=0)
