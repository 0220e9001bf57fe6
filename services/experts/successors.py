"""When a shard that stops may go: once others that stay hold all that it holds."""

import asyncio
import time
from collections.abc import Callable

from antiphon.errors import AntiphonError, Unavailable
from antiphon.experts.table import ExpertKey, ExpertModel, ShardDescription
from services.experts.keeper_desk import ShardDesk


class Successors:
    def __init__(
        self,
        shard_id: str,
        model: ExpertModel,
        desk: ShardDesk,
        *,
        alone_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """shard_id: of the one that goes. alone_seconds: nobody is there who could take anything over once none has
        been for so long; one look may be blind."""
        self._shard_id, self._model, self._desk = shard_id, model, desk
        self._alone_seconds, self._now = alone_seconds, now
        # Since when nobody has been found who stays.
        self._alone_since: float | None = None

    async def hold(self, keys: frozenset[ExpertKey]) -> bool:
        """Also when nobody stays: every other one goes, too, or refuses. One that is silent may stay. Raises what the
        list of addresses raises."""
        before, self._alone_since = self._alone_since, None
        answers = await asyncio.gather(*map(self._ask, await self._desk.addresses()))
        staying = [each for each in answers if isinstance(each, ShardDescription) and self._stays(each)]
        if staying:
            return keys <= frozenset[ExpertKey]().union(*(shard.held for shard in staying))
        if any(isinstance(each, AntiphonError) and not isinstance(each, Unavailable) for each in answers):
            return False
        now = self._now()
        self._alone_since = now if before is None else before
        return now - self._alone_since >= self._alone_seconds

    def _stays(self, shard: ShardDescription) -> bool:
        return shard.shard_id != self._shard_id and not shard.is_draining and shard.model == self._model

    async def _ask(self, address: str) -> ShardDescription | AntiphonError:
        try:
            return await self._desk.describe(address)
        except AntiphonError as error:
            return error
