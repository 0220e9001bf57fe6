"""Expert shards as a Ray Serve application: `import_path: services.experts.deployment:build`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ray import serve

from antiphon.hosting.ray_serve import StageArguments, ray_directory, stage_application
from antiphon.hosting.service import HostedService
from antiphon.scaling.policies import ExpertsPolicy
from antiphon.wire.expert_links.named_shards import ShardAddresses
from services.experts.config import ExpertsSettings
from services.experts.shard import host


def build(arguments: StageArguments) -> serve.Application:
    return stage_application(partial(_service, arguments.checkpoint), arguments, ExpertsPolicy())


def _service(checkpoint: Path) -> HostedService:
    """Made in the replica, where the stage's ANTIPHON_ variables are read."""
    return host(ExpertsSettings(checkpoint=checkpoint), _shard_addresses())


def _shard_addresses() -> ShardAddresses:
    """Of the replicas of this application."""
    directory = ray_directory()

    async def addresses() -> Sequence[str]:
        return await directory.addresses("experts")

    return addresses
