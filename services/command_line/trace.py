"""`antiphon trace`: receives the spans of any number of processes and draws each turn as it ends."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape

from antiphon.errors import AntiphonError
from antiphon.hosting.stop_signals import stop_signals
from antiphon.telemetry import waterfall
from antiphon.telemetry.otlp_receiver import receiving
from antiphon.telemetry.trace_assembly import TraceAssembly

_LOOK_EVERY_SECONDS: Final = 0.1


def trace(
    listen: Annotated[str, typer.Option(help="host:port for OTLP over gRPC; port 0 takes a free one.")] = (
        "127.0.0.1:4317"
    ),
) -> None:
    """Draw every turn of the processes whose OTEL_EXPORTER_OTLP_ENDPOINT points here."""
    output, notes = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        asyncio.run(_draw(listen, output, notes))
    except AntiphonError as error:
        notes.print(f"[bold red]antiphon trace:[/] {escape(error.message)}")
        raise typer.Exit(1) from error


async def _draw(listen: str, output: Console, notes: Console) -> None:
    assembly = TraceAssembly()
    async with AsyncExitStack() as opened:
        stop = await opened.enter_async_context(stop_signals())
        port = await opened.enter_async_context(receiving(listen, lambda spans: assembly.add(spans, time.monotonic())))
        host = listen.rpartition(":")[0]
        notes.print(f"Waiting for spans. Start the services with OTEL_EXPORTER_OTLP_ENDPOINT=http://{host}:{port}")
        while not stop.is_set():
            for spans in assembly.take_finished(time.monotonic()):
                output.print(waterfall.render(spans), markup=False)
                output.print()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
