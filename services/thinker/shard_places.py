"""Where expert shards are, how they are spoken to, and which host is this process's."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from antiphon.errors import InvalidInput
from antiphon.model.config import OmniConfig
from antiphon.wire.channels import Channels
from antiphon.wire.expert_links.client import ExpertsClient
from antiphon.wire.expert_links.host import this_host
from antiphon.wire.expert_links.limits import LinkLimits
from antiphon.wire.expert_links.named_shards import NamedShards, ShardAddresses
from services.thinker.config import ThinkerSettings
from services.thinker.shard_watch import ShardNetwork


async def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class ShardPlaces:
    network: ShardNetwork
    addresses: ShardAddresses
    host_id: str
    close: Callable[[], Awaitable[None]] = field(default=_nothing)


def shard_places(settings: ThinkerSettings, addresses: ShardAddresses | None = None) -> ShardPlaces:
    """addresses: where somebody knows them; otherwise those of the settings. Raises InvalidInput without any."""
    remote, text = settings.remote_experts, OmniConfig.from_checkpoint(settings.checkpoint).thinker.text
    if addresses is None and not remote.addresses:
        raise InvalidInput(
            "ANTIPHON_THINKER_EXPERTS is remote: expected the addresses of expert shards in "
            "ANTIPHON_DIRECTORY_EXPERTS, as host:port[,host:port...]; it is empty."
        )
    rows = settings.rows_per_step
    pairs, awake_seconds = rows * text.experts_per_token, remote.awake_microseconds / 1e6
    limits = LinkLimits(rows=rows, pairs=pairs, awake_seconds=awake_seconds)
    channels, host_id = Channels(), remote.host_id or this_host()
    client = ExpertsClient(channels, limits, host_id=host_id)
    return ShardPlaces(client, addresses or NamedShards(remote.addresses.split(",")), host_id, channels.close)
