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
from services.experts import deployment as experts
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
    # With the Thinker's experts on them; 0 leaves those in the Thinkers.
    expert_shards: int = 0


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
    if settings.expert_shards:
        applications["thinker"] = thinker.build(_calling_shards(stage))
        applications["experts"] = experts.build(_shards(stage, settings.expert_shards))
    host = RayHost(address=settings.ray_address, http_host=settings.host, http_port=port)
    async with deployed(applications, "gateway", host):
        yield base_url(settings.host, port)


def _calling_shards(stage: StageArguments) -> StageArguments:
    return stage.model_copy(update={"environment": {"ANTIPHON_THINKER_EXPERTS": "remote"}})


def _shards(stage: StageArguments, shards: int) -> StageArguments:
    """Every expert is on two of them if there are as many. What the environment says holds before."""
    wanted = {
        "ANTIPHON_EXPERTS_HOLDS": "none",
        "ANTIPHON_EXPERTS_KEEPER_LEAST_COPIES": str(min(2, shards)),
        "ANTIPHON_EXPERTS_KEEPER_REDUNDANCY": str(min(2, shards) - 1),
    }
    environment = {name: os.environ.get(name, value) for name, value in wanted.items()}
    return stage.model_copy(update={"scale": _scale(shards), "environment": environment})


def _scale(replicas: int) -> Scale:
    """Equal shares, so that all five services fit on one small machine."""
    cpus = min(1.0, (os.cpu_count() or 1) / 8 / replicas)
    return Scale(min_replicas=replicas, max_replicas=replicas, cpus=cpus)
