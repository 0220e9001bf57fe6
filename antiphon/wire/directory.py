"""Who serves what, and where."""

from collections.abc import Collection, Mapping, Sequence
from itertools import count
from typing import Protocol

from antiphon.errors import Unavailable
from antiphon.telemetry.names import StageName


class Directory(Protocol):
    async def locate(self, stage: StageName, *, avoiding: Collection[str] = ()) -> str:
        """A gRPC target of the stage, not one of `avoiding` if there is another. Raises Unavailable without any."""
        ...


class StaticDirectory:
    """Addresses that are known from the start, taken in turn. A name that stands for several hosts is one address:
    gRPC spreads its calls over them."""

    def __init__(self, addresses: Mapping[StageName, str | Sequence[str]]) -> None:
        self._addresses = {
            stage: (known,) if isinstance(known, str) else tuple(known) for stage, known in addresses.items()
        }
        self._turn = count()

    async def locate(self, stage: StageName, *, avoiding: Collection[str] = ()) -> str:
        known = self._addresses.get(stage, ())
        if not known:
            raise Unavailable(f"No address of the {stage} stage is configured.")
        candidates = [address for address in known if address not in avoiding] or known
        return candidates[next(self._turn) % len(candidates)]
