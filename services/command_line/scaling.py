"""`antiphon scaling`: what the policies decided from recorded windows, and what another plan would have."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from antiphon.errors import AntiphonError, InvalidInput
from antiphon.scaling.records import replay
from antiphon.scaling.scaler import Plan


def scaling(
    file: Annotated[Path, typer.Argument(help="Of a scale's `windows_file`.", exists=True, dir_okay=False)],
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="JSON of another plan: policy, pacing, bounds.", exists=True)
    ] = None,
) -> None:
    """Replay a stage's recorded windows: when it had how many replicas, why, and what differs under another plan."""
    output, notes = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        plan = None if plan_file is None else _plan(plan_file)
        with file.open(encoding="utf-8") as lines:
            _tell(output, lines, plan)
    except AntiphonError as error:
        notes.print(f"[bold red]antiphon scaling:[/] {escape(error.message)}")
        raise typer.Exit(1) from error


def _plan(file: Path) -> Plan:
    try:
        return Plan.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise InvalidInput(f"{file}: expected a plan with policy, pacing and bounds; {error}") from error


def _tell(output: Console, lines: Iterable[str], plan: Plan | None) -> None:
    """Decisions that change something, and those that the replay makes otherwise."""
    windows = differing = 0
    began: float | None = None
    for each in replay(lines, plan):
        began = each.at_seconds if began is None else began
        windows += 1
        differs = each.decided.replicas != each.recorded.replicas
        differing += differs
        if differs or each.recorded.replicas != each.target:
            replayed = f"  replayed: {each.decided.replicas} ({each.decided.reason})" if differs else ""
            decided = f"{each.target} -> {each.recorded.replicas}  {each.recorded.reason}{replayed}"
            output.print(escape(f"{each.at_seconds - began:9.1f} s  {decided}"))
    output.print(f"{windows} windows, {differing} decided otherwise")
