"""The whole platform on Ray Serve: one application a service, the gateway behind Serve's HTTP proxy."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from antiphon.hosting.base_url import base_url
from antiphon.hosting.free_port import free_port
from antiphon.hosting.ray_cluster import RayHost, deployed
from antiphon.hosting.ray_serve import Scale, StageArguments
from services.codec import deployment as codec
from services.encoders import deployment as encoders
from services.gateway import deployment as gateway
from services.talker import deployment as talker
from services.thinker import deployment as thinker


@dataclass(frozen=True, slots=True)
class RaySettings:
    checkpoint: Path
    host: str = "127.0.0.1"
    # 0 takes a free one.
    port: int = 8000
    # None starts a Ray that ends with this process.
    ray_address: str | None = None
    # Of each service.
    replicas: int = 1


@asynccontextmanager
async def ray_platform(settings: RaySettings) -> AsyncIterator[str]:
    """The base URL, once every application runs."""
    port = settings.port or free_port(settings.host)
    scale = _scale(settings.replicas)
    stage = StageArguments(checkpoint=settings.checkpoint.resolve(), scale=scale)
    applications = {
        "encoders": encoders.build(stage),
        "thinker": thinker.build(stage),
        "talker": talker.build(stage),
        "codec": codec.build(stage),
        "gateway": gateway.build(gateway.GatewayArguments(checkpoint=stage.checkpoint, scale=scale)),
    }
    host = RayHost(address=settings.ray_address, http_host=settings.host, http_port=port)
    async with deployed(applications, "gateway", host):
        yield base_url(settings.host, port)


def _scale(replicas: int) -> Scale:
    """Equal shares, so that all five services fit on one small machine."""
    cpus = min(1.0, (os.cpu_count() or 1) / 8 / replicas)
    return Scale(min_replicas=replicas, max_replicas=replicas, cpus=cpus)
