"""Where expert shards are, how they are spoken to, and which host is this process's."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from antiphon.errors import InvalidInput
from antiphon.model.config import OmniConfig
from antiphon.wire.channels import Channels
from antiphon.wire.expert_links.client import ExpertsClient
from antiphon.wire.expert_links.host import this_host
from antiphon.wire.expert_links.limits import LinkLimits
from services.thinker.config import ThinkerSettings
from services.thinker.shard_watch import ShardAddresses, ShardNetwork

_LOG = logging.getLogger(__name__)


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
    limits = LinkLimits(rows=rows, pairs=rows * text.experts_per_token)
    channels, host_id = Channels(), remote.host_id or this_host()
    client = ExpertsClient(channels, limits, host_id=host_id)
    return ShardPlaces(client, addresses or NamedShards(remote.addresses.split(",")), host_id, channels.close)


class NamedShards:
    """Of a name every host for which it stands now, each a shard."""

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = [each.strip() for each in targets if each.strip()]

    async def __call__(self) -> Sequence[str]:
        found = await asyncio.gather(*map(_resolved, self._targets))
        return [address for each in found for address in each]


async def _resolved(target: str) -> list[str]:
    """None while nobody knows the name."""
    host, _, port = target.rpartition(":")
    if target.startswith("unix:") or not host or not port.isdecimal():
        return [target]
    try:
        known = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        _LOG.debug("The name of the expert shards at %s is not known now: %s", target, error)
        return []
    addresses = dict.fromkeys(str(each[4][0]) for each in known)
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in addresses]
