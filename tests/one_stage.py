"""One stage behind a real gRPC server on a Unix socket, and a client that calls it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from antiphon.engine.loading import LoadingDecoder
from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.hosting.service import HostedService
from antiphon.telemetry.names import STAGES
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from antiphon.wire.stages import Stages


@asynccontextmanager
async def served(service: HostedService, folder: Path) -> AsyncIterator[Stages]:
    """Only the service's own stage answers."""
    address = f"unix:{folder}/{service.stage}.sock"
    directory = StaticDirectory({stage: [address] for stage in STAGES})
    async with serving([service], address, ServerLimits(drain_seconds=1)), StageCaller(directory) as caller:
        yield caller.stages()


async def becomes_idle(decoder: LoadingDecoder[Any, Any]) -> bool:
    """Whether soon nothing runs, waits, or holds a page or media."""
    for _ in range(200):
        load = decoder.load()
        if (load.running, load.waiting, load.pages_used, decoder.held_media_rows) == (0, 0, 0, 0):
            return True
        await asyncio.sleep(0.01)
    return False
