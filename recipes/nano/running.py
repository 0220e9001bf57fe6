"""Runs stages one after the other."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console

from recipes.nano import shipped
from recipes.nano.assemble import stage as assemble
from recipes.nano.codec import codes_stage as codes
from recipes.nano.codec import stage as codec
from recipes.nano.configuration import Recipe
from recipes.nano.evaluation import stage as evaluation
from recipes.nano.folders import WorkFolder
from recipes.nano.speech import stage as speech
from recipes.nano.stages import Stage
from recipes.nano.talker import stage as talker
from recipes.nano.thinker import stage as thinker
from recipes.nano.tokenizer import stage as tokenizer

RUN: dict[Stage, Callable[[Recipe, WorkFolder], None]] = {
    "speech": speech.run,
    "shipped": shipped.run,
    "tokenizer": tokenizer.run,
    "codec": codec.run,
    "codes": codes.run,
    "thinker": thinker.run,
    "talker": talker.run,
    "assemble": assemble.run,
    "evaluate": evaluation.run,
}
CONSOLE = Console(stderr=True, highlight=False)


def run_stages(stages: Sequence[Stage], recipe: Recipe, folder: WorkFolder) -> None:
    """Each skips what the folder already holds."""
    folder.root.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        began = time.monotonic()
        CONSOLE.rule(f"[bold]{stage}[/bold]", align="left")
        RUN[stage](recipe, folder)
        CONSOLE.print(f"{stage}: done after {(time.monotonic() - began) / 60:.1f} minutes")
