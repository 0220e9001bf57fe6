"""A desk that forgets no shard that answers, whatever the list of addresses says at the moment."""

import time
from collections.abc import Callable, Sequence

from antiphon.errors import AntiphonError
from antiphon.experts.known_addresses import KnownAddresses
from antiphon.experts.table import ExpertKey, ShardDescription
from services.experts.keeper_desk import ShardDesk


class KnownDesk:
    def __init__(self, desk: ShardDesk, forget_seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        """forget_seconds: one that is on no list any more, and silent for so long, is not asked again."""
        self._desk, self._now = desk, now
        self._known = KnownAddresses(forget_seconds)

    async def addresses(self) -> Sequence[str]:
        """Those that are listed now, and those that were and have not gone."""
        return self._known.to_ask(await self._desk.addresses(), self._now())

    async def describe(self, address: str, *, with_loads: bool = False) -> ShardDescription:
        try:
            told = await self._desk.describe(address, with_loads=with_loads)
        except AntiphonError as error:
            self._known.failed(address, error, self._now())
            raise
        self._known.answered(address, self._now())
        return told

    async def assign(self, address: str, epoch: int, experts: frozenset[ExpertKey] | None) -> None:
        await self._desk.assign(address, epoch, experts)
