"""Who serves what, and where."""

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from itertools import count
from typing import Protocol

from antiphon.errors import Unavailable
from antiphon.telemetry.names import StageName


class Directory(Protocol):
    async def locate(self, stage: StageName, *, avoiding: Collection[str] = (), affinity: bytes = b"") -> str:
        """A gRPC target of the stage, not one of `avoiding` if there is another. Calls of one affinity go to the same
        one for as long as it is there; calls of none are spread. Raises Unavailable without any."""
        ...

    async def addresses(self, stage: StageName) -> Sequence[str]:
        """Of all replicas of the stage, as far as they are known now."""
        ...


class StaticDirectory:
    """Addresses that are known from the start, taken in turn. A name that stands for several hosts is one address:
    gRPC spreads its calls over them."""

    def __init__(self, addresses: Mapping[StageName, str | Sequence[str]]) -> None:
        self._addresses = {
            stage: (known,) if isinstance(known, str) else tuple(known) for stage, known in addresses.items()
        }
        self._turn = count()

    async def locate(self, stage: StageName, *, avoiding: Collection[str] = (), affinity: bytes = b"") -> str:
        known = self._addresses.get(stage, ())
        if not known:
            raise Unavailable(f"No address of the {stage} stage is configured.")
        candidates = [address for address in known if address not in avoiding] or known
        if affinity:
            return max(candidates, key=lambda address: preference(affinity, address))
        return candidates[next(self._turn) % len(candidates)]

    async def addresses(self, stage: StageName) -> Sequence[str]:
        return self._addresses.get(stage, ())


def preference(affinity: bytes, address: str) -> bytes:
    """Rendezvous hashing: each affinity has an order of its own over all addresses, the greatest first. An address that
    comes or goes moves only those calls that prefer it."""
    return blake2b(address.encode(), key=blake2b(affinity, digest_size=32).digest(), digest_size=8).digest()
