"""One service alone in this process: `python -m services talker --listen 0.0.0.0:50051`."""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from antiphon.errors import AntiphonError, InvalidInput
from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.hosting.loaded_memory import keep_what_is_loaded
from antiphon.hosting.metrics_endpoint import serving_metrics
from antiphon.hosting.stop_signals import stop_signals
from antiphon.telemetry import logging as antiphon_logging
from antiphon.telemetry import tracing
from antiphon.wire.channels import Channels
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from antiphon.wire.errors import family_member
from antiphon.wire.health import is_serving
from services.hosted import ALL_STAGES, HostedStage, hosted_service

_LOG = logging.getLogger("services")
_GRPC_LISTEN: Final = "0.0.0.0:50051"
_HTTP_LISTEN: Final = "0.0.0.0:8000"
_CHECKPOINT_VARIABLE: Final = "ANTIPHON_CHECKPOINT"

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)

ListenOption = Annotated[str, typer.Option(help="host:port; port 0 takes a free one.")]
CheckpointOption = Annotated[
    Path | None, typer.Option(envvar=_CHECKPOINT_VARIABLE, help="nano by default.", exists=True, file_okay=False)
]
MetricsOption = Annotated[int | None, typer.Option(envvar="ANTIPHON_METRICS_PORT", help="Prometheus metrics, if set.")]
DrainOption = Annotated[float, typer.Option(help="How long open streams may go on after SIGTERM.")]


@dataclass(frozen=True, slots=True)
class StageOptions:
    listen: str
    checkpoint: Path
    metrics_port: int | None
    drain_seconds: float


def _stage_command(stage: HostedStage) -> Callable[..., None]:
    def run(
        listen: ListenOption = _GRPC_LISTEN,
        checkpoint: CheckpointOption = None,
        metrics_port: MetricsOption = None,
        drain_seconds: DrainOption = 30.0,
    ) -> None:
        options = StageOptions(listen, checkpoint or default_checkpoint(), metrics_port, drain_seconds)
        _run(lambda: _serve_stage(stage, options))

    run.__doc__ = f"Serves the {stage} over gRPC."
    return run


for _stage in ALL_STAGES:
    app.command(_stage)(_stage_command(_stage))


def _address_option(stage: HostedStage) -> typer.models.OptionInfo:
    variable = f"ANTIPHON_DIRECTORY_{stage.upper()}"
    option: typer.models.OptionInfo = typer.Option(envvar=variable, help=f"host:port[,host:port...] of the {stage}.")
    return option


@app.command()
def gateway(
    encoders: Annotated[str, _address_option("encoders")],
    thinker: Annotated[str, _address_option("thinker")],
    talker: Annotated[str, _address_option("talker")],
    codec: Annotated[str, _address_option("codec")],
    experts: Annotated[str, _address_option("experts")] = "",
    listen: ListenOption = _HTTP_LISTEN,
    checkpoint: CheckpointOption = None,
    drain_seconds: DrainOption = 30.0,
) -> None:
    """Serves the HTTP API over stages that run elsewhere. Experts are the Thinker's to call; here they are for
    administrators to see."""
    directory = StaticDirectory(
        {
            "encoders": encoders.split(","),
            "thinker": thinker.split(","),
            "talker": talker.split(","),
            "codec": codec.split(","),
            "experts": [each for each in experts.split(",") if each],
        }
    )
    options = StageOptions(listen, checkpoint or default_checkpoint(), None, drain_seconds)
    _run(lambda: _serve_gateway(directory, options))


@app.command()
def check(
    listen: ListenOption = "localhost:50051",
    service: Annotated[str, typer.Option(help="Full name of a gRPC service; all of the server's by default.")] = "",
) -> None:
    """Asks a running stage by grpc.health.v1; exits 0 if it serves."""

    async def ask() -> bool:
        channels = Channels()
        try:
            return await is_serving(channels, listen, service)
        finally:
            await channels.close()

    serves = asyncio.run(ask())
    typer.echo("SERVING" if serves else "NOT_SERVING")
    raise typer.Exit(0 if serves else 1)


async def _serve_stage(stage: HostedStage, options: StageOptions) -> None:
    async with AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stop_signals())
        _observe(stack, stage, options)
        _LOG.info("Loading the %s from %s.", stage, options.checkpoint)
        service = await asyncio.to_thread(hosted_service, stage, options.checkpoint)
        limits = ServerLimits(drain_seconds=options.drain_seconds)
        server = await stack.enter_async_context(serving([service], options.listen, limits))
        keep_what_is_loaded()
        _LOG.info("The %s serves on port %d.", stage, server.port)
        await stop.wait()
        _LOG.info("Draining.")


async def _serve_gateway(directory: StaticDirectory, options: StageOptions) -> None:
    from services.gateway.serving import serving_gateway

    async with AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stop_signals())
        _observe(stack, "gateway", options)
        caller = await stack.enter_async_context(StageCaller(directory))
        address = _host_and_port(options.listen)
        gateway = serving_gateway(options.checkpoint, caller, address, options.drain_seconds)
        port = await stack.enter_async_context(gateway)
        keep_what_is_loaded()
        _LOG.info("The gateway serves on port %d.", port)
        await stop.wait()
        _LOG.info("Draining.")


def _host_and_port(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidInput(f"--listen: expected host:port, such as 0.0.0.0:8000; came {listen}.")
    return host.strip("[]"), int(port)


def _observe(stack: AsyncExitStack, stage: str, options: StageOptions) -> None:
    traced = tracing.configure(f"antiphon-{stage}")
    stack.push_async_callback(asyncio.to_thread, traced.close)
    stack.enter_context(serving_metrics(options.metrics_port))


def _run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """A fault that the operator can mend is told in a sentence, without a traceback."""
    antiphon_logging.configure(os.environ.get("ANTIPHON_LOG_LEVEL", "INFO"))
    try:
        asyncio.run(main())
    except (AntiphonError, BaseExceptionGroup) as error:
        known = family_member(error)
        if known is None:
            raise
        typer.echo(f"antiphon: {known.message}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
