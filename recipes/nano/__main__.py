"""The command line: `python -m recipes.nano all --config recipes/nano/configs/smoke.toml --work DIR`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from recipes.nano.errors import RecipeError
from recipes.nano.folders import WorkFolder
from recipes.nano.stages import STAGES, WHAT_IT_DOES, Stage

Config = Annotated[Path, typer.Option(help="Settings of every stage, a file of recipes/nano/configs or one's own.")]
Work = Annotated[Path, typer.Option(help="Folder of this run: every stage goes on from what it finds there.")]

app = typer.Typer(
    help="Train a small model of the Qwen3-Omni architecture.", no_args_is_help=True, add_completion=False
)


@app.command(name="all", help="Every stage that the configuration names, one after the other.")
def run_all(config: Config, work: Work) -> None:
    _run(None, config, work)


def _command_of(stage: Stage) -> Callable[[Path, Path], None]:
    def command(config: Config, work: Work) -> None:
        _run([stage], config, work)

    return command


def _run(stages: Sequence[Stage] | None, config: Path, work: Path) -> None:
    # Here, because the processes that synthesise speech import this file, too, and need none of it.
    from recipes.nano.configuration import read_recipe
    from recipes.nano.running import run_stages

    try:
        recipe = read_recipe(config)
        run_stages(stages or recipe.stages, recipe, WorkFolder(work))
    except RecipeError as wrong:
        typer.secho(str(wrong), err=True, fg="red")
        raise typer.Exit(1) from wrong


for _stage in STAGES:
    app.command(name=_stage, help=WHAT_IT_DOES[_stage])(_command_of(_stage))

if __name__ == "__main__":
    app()
