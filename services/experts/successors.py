"""When a shard that stops may go: once others that stay hold all that it holds."""

from dataclasses import dataclass

from antiphon.errors import AntiphonError
from antiphon.experts.table import ExpertKey, ExpertModel
from services.experts.keeper_desk import ShardDesk


@dataclass(frozen=True, slots=True)
class Successors:
    # Of the one that goes.
    shard_id: str
    model: ExpertModel
    desk: ShardDesk

    async def hold(self, keys: frozenset[ExpertKey]) -> bool:
        """Also when nobody stays, who could take anything over."""
        stays, held = False, frozenset[ExpertKey]()
        for address in await self.desk.addresses():
            try:
                shard = await self.desk.describe(address)
            except AntiphonError:
                continue
            if shard.shard_id != self.shard_id and not shard.is_draining and shard.model == self.model:
                stays, held = True, held | shard.held
        return not stays or keys <= held
