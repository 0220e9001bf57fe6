"""The gateway on a port of this process, and how it leaves: /readyz tells, new turns are refused, open ones finish."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from antiphon.hosting.http_server import HttpLimits, serving_http
from antiphon.storage.connection import open_storage
from antiphon.storage.settings import StorageSettings
from antiphon.wire.clients import StageCaller
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings

# For what is left when the turns have had their time.
_CUT_SECONDS: Final = 1


@asynccontextmanager
async def serving_gateway(
    checkpoint: Path, caller: StageCaller, address: tuple[str, int], drain_seconds: float
) -> AsyncIterator[int]:
    """`address` is host and port; gives the real port (0 takes a free one)."""
    settings = GatewaySettings(checkpoint=checkpoint)
    async with AsyncExitStack() as opened:
        storage = open_storage(StorageSettings())
        if storage is not None:
            await opened.enter_async_context(storage)
        experts = caller.expert_shards().read
        make = partial(create_app, settings, caller.stages(), caller.readiness, storage=storage, experts=experts)
        app = await asyncio.to_thread(make)
        http = serving_http(app, *address, HttpLimits(drain_seconds=_CUT_SECONDS))
        port = await opened.enter_async_context(http)
        opened.push_async_callback(app.state.gate.close, drain_seconds)
        yield port
