"""A fleet of shards that only hold, the keeper of each, and a clock that goes when it is told to."""

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from antiphon.experts.table import ExpertKey, ExpertModel, TrunkRouting
from services.experts.keeper import PlacementKeeper
from services.experts.keeper_config import KeeperSettings
from services.experts.keeper_fakes import FakeDesk, FakeHolder
from services.experts.known_desk import KnownDesk

MODEL = ExpertModel("float32", 2, 8, 2, 8, 4, "print")
KEYS = frozenset((layer, expert) for layer in range(2) for expert in range(8))
SETTINGS = KeeperSettings(addresses="", loads_at_once=2, settle_seconds=2.0, plan_every_seconds=10.0, redundancy=0.5)


@dataclass
class KeptFleet:
    settings: KeeperSettings = SETTINGS
    shards: dict[str, FakeHolder] = field(default_factory=dict)
    keepers: dict[str, PlacementKeeper] = field(default_factory=dict)
    desks: dict[str, FakeDesk] = field(default_factory=dict)
    seconds: float = 0.0
    # Those that were lost with the shards that held them.
    lost: set[ExpertKey] = field(default_factory=set)

    def start(
        self,
        name: str,
        held: Iterable[ExpertKey] = (),
        *,
        capacity: int = 12,
        hidden: Iterable[str] = (),
        travel: Callable[[], Awaitable[None]] | None = None,
        **known: str,
    ) -> FakeHolder:
        host = known.get("host_id", name)
        shard = self.shards[name] = FakeHolder(MODEL, f"id of {name}", capacity, set(held), host, known.get("zone", ""))
        options = {} if travel is None else {"travel": travel}
        fake = self.desks[name] = FakeDesk(self.shards, hidden=hidden, **options)
        desk = KnownDesk(fake, self.settings.silence_seconds, lambda: self.seconds)
        chance = random.Random(name).random  # noqa: S311 - guards nothing
        self.keepers[name] = PlacementKeeper(shard.shard_id, MODEL, desk, self.settings, lambda: self.seconds, chance)
        return shard

    def kill(self, name: str) -> None:
        del self.shards[name], self.keepers[name]
        self.lost |= KEYS - self.live()

    def live(self) -> frozenset[ExpertKey]:
        return frozenset[ExpertKey]().union(*(shard.held for shard in self.shards.values()))

    def copies(self, key: ExpertKey) -> int:
        return sum(key in shard.held for shard in self.shards.values())

    @property
    def total(self) -> int:
        return sum(len(shard.held) for shard in self.shards.values())

    async def pass_second(self) -> None:
        """Every keeper looks, every shard loads; what no loss took is there all the time."""
        for keeper in list(self.keepers.values()):
            await keeper.look()
            self.check()
        self.work()

    def work(self) -> None:
        for shard in self.shards.values():
            shard.work(1)
        self.check()
        self.seconds += 1

    def check(self) -> None:
        self.lost -= self.live()
        assert self.live() | self.lost == KEYS, f"given up: {KEYS - self.live() - self.lost}"

    async def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            await self.pass_second()

    def ruling(self) -> list[str]:
        return [name for name, keeper in self.keepers.items() if keeper.reign is not None]


def asked(pairs: "np.ndarray[tuple[int, int], np.dtype[np.float32]]", trunk: str = "trunk") -> TrunkRouting:
    return TrunkRouting(trunk, 60.0, pairs)
