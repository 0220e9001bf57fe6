"""What a keeper asks and tells the shards, by whichever way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from antiphon.experts.table import ExpertKey, ShardDescription
from antiphon.wire.expert_links.client import ExpertsClient
from antiphon.wire.expert_links.named_shards import ShardAddresses


class ShardDesk(Protocol):
    async def addresses(self) -> Sequence[str]:
        """Of all shards, as far as they are known."""
        ...

    async def describe(self, address: str, *, with_loads: bool = False) -> ShardDescription:
        """Raises Unavailable when the shard is gone, DeadlineExceeded when it is silent."""
        ...

    async def assign(self, address: str, epoch: int, experts: frozenset[ExpertKey] | None) -> None:
        """experts: None takes the epoch and leaves what is held as it is. Raises Conflict when another keeper has taken
        a greater one."""
        ...


@dataclass(frozen=True, slots=True)
class WireDesk:
    client: ExpertsClient
    known: ShardAddresses
    answer_seconds: float

    async def addresses(self) -> Sequence[str]:
        return await self.known()

    async def describe(self, address: str, *, with_loads: bool = False) -> ShardDescription:
        return await self.client.describe(address, timeout_seconds=self.answer_seconds, with_loads=with_loads)

    async def assign(self, address: str, epoch: int, experts: frozenset[ExpertKey] | None) -> None:
        await self.client.assign(address, epoch, experts, timeout_seconds=self.answer_seconds)
