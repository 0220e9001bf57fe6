"""Shards that only hold: slow to load and to give up, fenced by epochs, lost and silent at will."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from antiphon.errors import Conflict, DeadlineExceeded, TooLarge, Unavailable
from antiphon.experts.table import ExpertKey, ExpertModel, ShardDescription, TrunkRouting


@dataclass
class FakeHolder:
    model: ExpertModel
    shard_id: str
    capacity: int
    held: set[ExpertKey] = field(default_factory=set)
    host_id: str = ""
    zone: str = ""
    epoch: int = 0
    routings: tuple[TrunkRouting, ...] = ()
    is_draining: bool = False
    is_silent: bool = False

    def __post_init__(self) -> None:
        self.wanted = frozenset(self.held)
        # Most that it ever loaded at a time, and held.
        self.most_loading = 0
        self.most_held = len(self.held)
        self.loads = 0
        # How often it was asked what it has.
        self.asked = 0

    def describe(self, address: str, *, with_loads: bool) -> ShardDescription:
        self.asked += 1
        return ShardDescription(
            address=address,
            shard_id=self.shard_id,
            host_id=self.host_id,
            zone=self.zone,
            socket_path="",
            model=self.model,
            epoch=self.epoch,
            held=self.wanted & self.held,
            loading_count=len(self.wanted - self.held),
            capacity=self.capacity,
            is_draining=self.is_draining,
            routings=self.routings if with_loads else (),
        )

    def assign(self, epoch: int, experts: frozenset[ExpertKey] | None) -> None:
        if self.is_draining:
            raise Unavailable(f"{self.shard_id} is stopping.")
        if epoch < self.epoch:
            raise Conflict(f"Expected {self.epoch} or more; came {epoch}.")
        if experts is not None and len(experts) > self.capacity:
            raise TooLarge(f"Expected at most {self.capacity}; came {len(experts)}.")
        self.epoch = epoch
        if experts is not None:
            self.wanted = experts
            self.most_loading = max(self.most_loading, len(experts - self.held))

    def work(self, count: int) -> None:
        """Loads as many as that, new ones first while there is room, and gives up as many."""
        for key in sorted(self.wanted - self.held)[:count]:
            if len(self.held) < self.capacity:
                self.held.add(key)
                self.loads += 1
        self.most_held = max(self.most_held, len(self.held))
        self.held -= set(sorted(self.held - self.wanted)[:count])


async def _at_once() -> None:
    return


class FakeDesk:
    """Of shards by their addresses, some of which this keeper may not see."""

    def __init__(
        self,
        shards: dict[str, FakeHolder],
        *,
        hidden: Iterable[str] = (),
        travel: Callable[[], Awaitable[None]] = _at_once,
    ) -> None:
        """travel: how long a question takes, and then again its answer."""
        self._shards, self.hidden, self._travel = shards, set(hidden), travel
        # Addresses that no list has, and that answer nevertheless.
        self.unlisted: set[str] = set()
        # (address, epoch, experts), as they were sent.
        self.sent: list[tuple[str, int, frozenset[ExpertKey] | None]] = []
        # Addresses whose answers are lost after they have done what they were told.
        self.loses_answers_of: set[str] = set()

    async def addresses(self) -> Sequence[str]:
        return [address for address in self._shards if address not in self.hidden | self.unlisted]

    async def describe(self, address: str, *, with_loads: bool = False) -> ShardDescription:
        await self._travel()
        described = self._shard(address).describe(address, with_loads=with_loads)
        await self._travel()
        return described

    async def assign(self, address: str, epoch: int, experts: frozenset[ExpertKey] | None) -> None:
        await self._travel()
        self.sent.append((address, epoch, experts))
        self._shard(address).assign(epoch, experts)
        await self._travel()
        if address in self.loses_answers_of:
            raise DeadlineExceeded(f"No answer came from {address}.")

    def _shard(self, address: str) -> FakeHolder:
        shard = self._shards.get(address)
        if shard is None or address in self.hidden:
            raise Unavailable(f"Nobody is at {address}.")
        if shard.is_silent:
            raise DeadlineExceeded(f"{address} is silent.")
        return shard
