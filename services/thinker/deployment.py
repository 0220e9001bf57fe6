"""The Thinker as a Ray Serve application: `import_path: services.thinker.deployment:build`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ray import serve

from antiphon.hosting.ray_serve import StageArguments, ray_directory, stage_application
from antiphon.hosting.service import HostedService
from antiphon.scaling.policies import ThinkerPolicy
from services.thinker.config import ThinkerSettings
from services.thinker.servicer import host
from services.thinker.shard_watch import ShardAddresses


def build(arguments: StageArguments) -> serve.Application:
    return stage_application(partial(_service, arguments.checkpoint), arguments, ThinkerPolicy())


def _service(checkpoint: Path) -> HostedService:
    """Made in the replica, where the stage's ANTIPHON_ variables are read."""
    return host(ThinkerSettings(checkpoint=checkpoint), _shard_addresses())


def _shard_addresses() -> ShardAddresses:
    """Of the replicas of the application "experts", whose experts a Thinker without any calls."""
    directory = ray_directory()

    async def addresses() -> Sequence[str]:
        return await directory.addresses("experts")

    return addresses
