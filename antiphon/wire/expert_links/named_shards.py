"""The addresses of shards that are known by name."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

_LOG = logging.getLogger(__name__)

# Addresses of all shards, as far as they are known.
ShardAddresses = Callable[[], Awaitable[Sequence[str]]]

_LOOKUP_SECONDS: Final = 2.0


class NamedShards:
    """Of a name every host for which it stands now, each a shard."""

    def __init__(self, targets: Sequence[str], *, lookup_seconds: float = _LOOKUP_SECONDS) -> None:
        """lookup_seconds: longer is not waited for a name; then it stands for what it stood for last."""
        self._names = [_Name(each.strip(), lookup_seconds) for each in targets if each.strip()]

    async def __call__(self) -> Sequence[str]:
        found = await asyncio.gather(*(name.addresses() for name in self._names))
        return [address for each in found for address in each]


class _Name:
    def __init__(self, target: str, lookup_seconds: float) -> None:
        self._target, self._lookup_seconds = target, lookup_seconds
        # None before anybody has known it.
        self._last: list[str] = []
        # One at a time: the system's lookup cannot be given up, and keeps a thread until it ends.
        self._lookup: asyncio.Task[None] | None = None

    async def addresses(self) -> Sequence[str]:
        if self._lookup is None or self._lookup.done():
            self._lookup = asyncio.create_task(self._look_up(), name=f"lookup of {self._target}")
        await asyncio.wait({self._lookup}, timeout=self._lookup_seconds)
        return self._last

    async def _look_up(self) -> None:
        try:
            self._last = await _resolved(self._target)
        except (OSError, UnicodeError) as error:
            _LOG.debug("The name of the expert shards at %s is not known now: %s", self._target, error)


async def _resolved(target: str) -> list[str]:
    host, _, port = target.rpartition(":")
    if target.startswith("unix:") or not host or not port.isdecimal():
        return [target]
    known = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    addresses = dict.fromkeys(str(each[4][0]) for each in known)
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in addresses]
