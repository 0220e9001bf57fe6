"""The whole platform in one process: every stage over gRPC on a private Unix socket, the gateway on a port."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from antiphon.hosting.base_url import base_url
from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.hosting.service import HostedService
from antiphon.telemetry import tracing
from antiphon.telemetry.span_records import SpanRing
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory

ServeGateway = Callable[[Path, StageCaller, tuple[str, int], float], AbstractAsyncContextManager[int]]


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    checkpoint: Path
    host: str = "127.0.0.1"
    # 0 takes a free one.
    port: int = 0
    drain_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class EmbeddedPlatform:
    base_url: str
    # The services, for whoever wants to look inside.
    services: Sequence[HostedService]
    # The latest spans of this process.
    spans: SpanRing = field(repr=False)


@asynccontextmanager
async def embedded_platform(checkpoint: Path) -> AsyncIterator[str]:
    """The base URL of a platform on a free port of this machine, for as long as the block lasts."""
    async with running_platform(EmbeddedSettings(checkpoint)) as platform:
        yield platform.base_url


@asynccontextmanager
async def running_platform(settings: EmbeddedSettings) -> AsyncIterator[EmbeddedPlatform]:
    async with AsyncExitStack() as stack:
        ring = SpanRing()
        traced = tracing.configure("antiphon", ring)
        stack.push_async_callback(asyncio.to_thread, traced.close)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="antiphon-"))  # only its owner may enter
        address = f"unix:{folder}/stages.sock"
        services, serving_gateway = await asyncio.to_thread(_parts, settings)
        limits = ServerLimits(drain_seconds=settings.drain_seconds)
        await stack.enter_async_context(serving(services, address, limits))
        directory = StaticDirectory({service.stage: address for service in services})
        caller = await stack.enter_async_context(StageCaller(directory))
        gateway = serving_gateway(settings.checkpoint, caller, (settings.host, settings.port), settings.drain_seconds)
        port = await stack.enter_async_context(gateway)
        yield EmbeddedPlatform(base_url(settings.host, port), services, ring)


def _parts(settings: EmbeddedSettings) -> tuple[list[HostedService], ServeGateway]:
    """Imports every stage and the gateway: seconds, so not on the event loop."""
    from services.gateway.serving import serving_gateway
    from services.hosted import HOSTED_STAGES, hosted_service

    return [hosted_service(stage, settings.checkpoint) for stage in HOSTED_STAGES], serving_gateway
