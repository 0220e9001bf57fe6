"""The addresses of shards that are known by name."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence

_LOG = logging.getLogger(__name__)

# Addresses of all shards, as far as they are known.
ShardAddresses = Callable[[], Awaitable[Sequence[str]]]


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
