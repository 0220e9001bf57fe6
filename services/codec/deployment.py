"""The codec as a Ray Serve application: `import_path: services.codec.deployment:build`."""

from functools import partial
from pathlib import Path

from ray import serve

from antiphon.hosting.ray_serve import StageArguments, stage_application
from antiphon.hosting.service import HostedService
from antiphon.scaling.policies import SpeechPolicy
from services.codec.config import CodecSettings
from services.codec.servicer import host


def build(arguments: StageArguments) -> serve.Application:
    return stage_application(partial(_service, arguments.checkpoint), arguments, SpeechPolicy())


def _service(checkpoint: Path) -> HostedService:
    """Made in the replica, where the stage's ANTIPHON_ variables are read."""
    return host(CodecSettings(checkpoint=checkpoint))
