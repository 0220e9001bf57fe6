"""The gateway as a Ray Serve application: ASGI behind Serve's HTTP proxy, the stages found through their handles."""

import asyncio
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve

from antiphon.hosting.ray_serve import Scale, placement, ray_directory
from antiphon.hosting.ray_stopping import until_stopping
from antiphon.storage.connection import open_storage
from antiphon.storage.settings import StorageSettings
from antiphon.telemetry import logging as antiphon_logging
from antiphon.telemetry import tracing
from antiphon.wire.clients import StageCaller
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from services.gateway.turns.gate import TurnGate

# Turns that one replica conducts at once are bounded by the gateway itself, which says so in OpenAI's envelope.
_ONGOING_REQUESTS: Final = 4096
# Beyond the time of open turns: for streams to say that they end, and for sessions to be kept as they end.
_END_SECONDS: Final = 10.0


class GatewayArguments(BaseModel):
    """The `args` of the gateway's application in a Serve config file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: Path
    scale: Scale = Scale(cpus=0.5)
    drain_seconds: float = 30.0


@serve.ingress()
class GatewayReplica:
    async def __init__(self, checkpoint: Path, drain_seconds: float) -> None:  # type: ignore[misc]  # Serve awaits it
        antiphon_logging.configure()
        self._checkpoint, self._drain_seconds = checkpoint, drain_seconds
        self._traced = tracing.configure("antiphon-gateway")
        self._directory = ray_directory()
        self._caller = StageCaller(self._directory)
        self._storage = open_storage(StorageSettings())
        self._gate: TurnGate | None = None
        self._leaving = asyncio.create_task(self._leave(), name="gateway leaves")

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = GatewaySettings(checkpoint=self._checkpoint)
        stages, experts = self._caller.stages(), self._caller.expert_shards().read
        app = create_app(settings, stages, self._caller.readiness, storage=self._storage, experts=experts)
        self._gate = app.state.gate
        return app

    async def _leave(self) -> None:
        """As soon as Serve waits for the last request: new turns are refused, live sessions are told, open turns have
        their time."""
        await until_stopping()
        if self._gate is not None:
            await self._gate.close(self._drain_seconds)

    async def __del__(self) -> None:
        """Serve awaits this when every request that it proxied is over."""
        self._leaving.cancel()
        await self._caller.close()
        if self._storage is not None:
            await self._storage.close()
        await self._directory.close()
        await asyncio.to_thread(self._traced.close)


def build(arguments: GatewayArguments) -> serve.Application:
    options: dict[str, Any] = placement(arguments.scale, records_calls=False) | {
        "max_ongoing_requests": _ONGOING_REQUESTS
    }
    deployment = serve.deployment(
        GatewayReplica, name="ingress", graceful_shutdown_timeout_s=arguments.drain_seconds + _END_SECONDS, **options
    )
    return deployment.bind(arguments.checkpoint, arguments.drain_seconds)
