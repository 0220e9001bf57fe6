"""`antiphon serve`: the whole platform, in this process or on Ray."""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from antiphon.errors import AntiphonError, InvalidInput
from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.hosting.loaded_memory import keep_what_is_loaded
from antiphon.hosting.stop_signals import stop_signals
from antiphon.telemetry import logging as antiphon_logging
from antiphon.wire.errors import family_member
from services.command_line.waiting import waiting

DEFAULT_PORT: Final = 8000


class Host(StrEnum):
    """What the services run on."""

    PROCESS = "process"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    checkpoint: Path
    host: str
    port: int
    on: Host
    # None starts a Ray of its own.
    ray_address: str | None
    expert_shards: int


def serve(
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            envvar="ANTIPHON_CHECKPOINT", help="What to serve; nano by default.", exists=True, file_okay=False
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = DEFAULT_PORT,
    on: Annotated[Host, typer.Option(help="One process, or Ray Serve.")] = Host.PROCESS,
    ray_address: Annotated[str | None, typer.Option(help="A running Ray; by default one is started here.")] = None,
    expert_shards: Annotated[
        int, typer.Option(min=0, help="On Ray: shards with the Thinker's experts, which it has itself by default.")
    ] = 0,
) -> None:
    """Serve the OpenAI-compatible API until Ctrl-C."""
    notes = Console(stderr=True)
    antiphon_logging.configure(os.environ.get("ANTIPHON_LOG_LEVEL", "WARNING"))
    try:
        if expert_shards and on is not Host.RAY:
            raise InvalidInput(
                f"--expert-shards: expected with --on ray; came {expert_shards} in one process. Add --on ray, or start "
                "shards beside with `python -m services experts` (docs/experts.md)."
            )
        found = (checkpoint or default_checkpoint()).resolve()  # its name is the model's, also of "."
        asyncio.run(_serve(ServeOptions(found, host, port, on, ray_address, expert_shards), notes))
    except (AntiphonError, BaseExceptionGroup) as error:
        known = family_member(error)
        if known is None:
            raise
        notes.print(f"[bold red]antiphon serve:[/] {escape(known.message)}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


async def _serve(options: ServeOptions, notes: Console) -> None:
    async with AsyncExitStack() as opened:
        stop = await opened.enter_async_context(stop_signals())
        async with waiting(notes, f"Loading {options.checkpoint.name}"):
            base_url = await _unless(stop, opened.enter_async_context(_platform(options)))
        if base_url is None:
            return
        keep_what_is_loaded()
        _tell(base_url, options, notes)
        await stop.wait()
        notes.print("Finishing the answers that are under way; Ctrl-C again drops them.")


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, str]) -> str | None:
    """None if the stop comes before the work is done, which is then cancelled."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


@asynccontextmanager
async def _platform(options: ServeOptions) -> AsyncIterator[str]:
    """Its base URL. What it runs on is loaded only when it is asked for."""
    if options.on is Host.RAY:
        from services.on_ray import RaySettings, ray_platform

        running: AbstractAsyncContextManager[str] = ray_platform(
            RaySettings(
                options.checkpoint,
                options.host,
                options.port,
                options.ray_address,
                expert_shards=options.expert_shards,
            )
        )
        async with running as base_url:
            yield base_url
    else:
        from services.embedded import EmbeddedSettings, running_platform

        async with running_platform(EmbeddedSettings(options.checkpoint, options.host, options.port)) as platform:
            yield platform.base_url


def _tell(base_url: str, options: ServeOptions, notes: Console) -> None:
    notes.print(f"[bold]{options.checkpoint.name}[/] answers at [bold]{base_url}/v1[/]", highlight=False)
    body = '{"model":"%s","messages":[{"role":"user","content":"What sound does a cow make?"}]}'
    notes.print(
        f"  curl {base_url}/v1/chat/completions -H 'content-type: application/json' \\\n"
        f"    -d '{escape(body % options.checkpoint.name)}'",
        highlight=False,
        soft_wrap=True,
    )
