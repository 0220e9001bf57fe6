"""Every stage by its name, ready to be hosted; a stage's code is loaded when it is asked for."""

from pathlib import Path
from typing import Final, Literal, get_args

from antiphon.hosting.service import HostedService

# What answers over gRPC; each but the gateway.
HostedStage = Literal["encoders", "thinker", "experts", "talker", "codec"]
# Those of every platform. A Thinker has its experts itself, or calls shards that are there besides.
HOSTED_STAGES: Final[tuple[HostedStage, ...]] = ("encoders", "thinker", "talker", "codec")
ALL_STAGES: Final[tuple[HostedStage, ...]] = get_args(HostedStage)


def hosted_service(stage: HostedStage, checkpoint: Path) -> HostedService:
    """The stage's other settings come from its ANTIPHON_ variables. Loads nothing yet."""
    from antiphon.model.placement import limit_cpu_threads

    limit_cpu_threads()
    match stage:
        case "encoders":
            from services.encoders.config import EncodersSettings
            from services.encoders.servicer import host as host_encoders

            return host_encoders(EncodersSettings(checkpoint=checkpoint))
        case "thinker":
            from services.thinker.config import ThinkerSettings
            from services.thinker.servicer import host as host_thinker

            return host_thinker(ThinkerSettings(checkpoint=checkpoint))
        case "experts":
            from services.experts.config import ExpertsSettings
            from services.experts.shard import host as host_experts

            return host_experts(ExpertsSettings(checkpoint=checkpoint))
        case "talker":
            from services.talker.config import TalkerSettings
            from services.talker.servicer import host as host_talker

            return host_talker(TalkerSettings(checkpoint=checkpoint))
        case "codec":
            from services.codec.config import CodecSettings
            from services.codec.servicer import host as host_codec

            return host_codec(CodecSettings(checkpoint=checkpoint))
