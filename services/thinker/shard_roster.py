"""The shards that the trunk calls now: published by who watches them, taken by who calls them, lost by either."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from antiphon.errors import AntiphonError
from antiphon.experts.calls import ShardLink
from antiphon.experts.routing import ShardCost
from antiphon.experts.table import ExpertKey, ExpertModel, ShardDescription, ShardTable
from antiphon.experts.usual_times import UsualTimes
from services.thinker.trunk_turns import LANES

_LOG = logging.getLogger(__name__)

_LONGEST_PROBATIONS: Final = 16


@dataclass(slots=True, eq=False)
class LinkedShard:
    """The way to one shard, until it is lost."""

    shard_id: str
    address: str
    # One for each lane.
    links: tuple[ShardLink, ...]
    usual: UsualTimes = field(default_factory=UsualTimes)
    is_lost: bool = False

    def close(self) -> None:
        for link in self.links:
            link.close()


# What a shard told last, and the way to it.
Described = tuple[ShardDescription, LinkedShard]


@dataclass(frozen=True, slots=True)
class LiveShards:
    """Immutable; `shards` and `costs` are in the order of the table's."""

    # Later ones have greater ones.
    epoch: int
    table: ShardTable
    shards: tuple[LinkedShard, ...]
    costs: tuple[ShardCost, ...]
    # Of each layer the shards without which an expert of it would have no copy.
    needed: tuple[frozenset[int], ...]

    @classmethod
    def of(cls, epoch: int, before: ShardTable, described: Sequence[Described], host_id: str) -> "LiveShards":
        table = before.told_anew([description for description, _ in described])
        costs = tuple(ShardCost.of(each, host_id) for each in table.shards)
        needed = tuple(frozenset(table.copies(layer).sole.tolist()) - {-1} for layer in range(table.model.layers))
        return cls(epoch, table, tuple(shard for _, shard in described), costs, needed)

    @property
    def described(self) -> list[Described]:
        return list(zip(self.table.shards, self.shards, strict=True))


@dataclass(frozen=True, slots=True)
class _Probation:
    until: float
    seconds: float


class ShardRoster:
    """One thread watches; each lane calls from a thread of its own."""

    def __init__(self, model: ExpertModel, host_id: str, *, probation_seconds: float) -> None:
        self.model, self._host_id, self._probation_seconds = model, host_id, probation_seconds
        self.live = LiveShards.of(0, ShardTable(model, ()), (), host_id)
        # Called from a lane's thread when it has lost a shard.
        self.on_loss: Callable[[], None] = lambda: None
        self._probations: dict[str, _Probation] = {}
        self._changed = threading.Condition()
        # Of each lane the table with which it is calling, if it is.
        self._taken: list[int | None] = [None] * LANES
        # Shards that no later table has, with the last that had them.
        self._left: list[tuple[int, LinkedShard]] = []

    def take(self, lane: int) -> LiveShards:
        """For one call; nothing of it is closed before the lane gives it back or takes the next."""
        with self._changed:
            self._taken[lane] = self.live.epoch
            return self.live

    def give_back(self, lane: int) -> None:
        self._taken[lane] = None

    def wait(self, epoch: int, seconds: float) -> None:
        """Until there is a later table than that, but not for longer."""
        with self._changed:
            self._changed.wait_for(lambda: self.live.epoch > epoch, seconds)

    def lose(self, shard: LinkedShard, error: AntiphonError, *, on_probation: bool = True) -> None:
        """By a lane: it is not called again before the watcher has linked it anew, after its probation unless nobody
        can do without it."""
        with self._changed:
            if shard.is_lost:
                return
            shard.is_lost = True
            if on_probation:
                self._put_on_probation(shard.shard_id)
            self._replace(self.live.described)
        _LOG.warning("Lost the expert shard at %s: %s", shard.address, error.message)
        self.on_loss()

    def publish(self, described: Sequence[Described]) -> None:
        """By the watcher: all that it knows to be there. What a lane has lost stays lost."""
        with self._changed:
            known = {shard.shard_id for _, shard in described}
            now = time.monotonic()
            forgotten = [each for each, found in self._probations.items() if each not in known and found.until < now]
            for shard_id in forgotten:
                del self._probations[shard_id]
            self._replace(described)
        for shard in self._closable():
            shard.close()

    def on_probation(self) -> frozenset[str]:
        with self._changed:
            now = time.monotonic()
            return frozenset(shard_id for shard_id, found in self._probations.items() if found.until > now)

    def missing(self) -> list[ExpertKey]:
        return self.live.table.missing()

    def close(self) -> None:
        """Once no lane calls any more."""
        self.publish(())
        with self._changed:
            left, self._left = self._left, []
        for _, shard in left:
            shard.close()

    def _put_on_probation(self, shard_id: str) -> None:
        """Each time for twice as long, up to a bound."""
        before = self._probations.get(shard_id)
        seconds = self._probation_seconds if before is None else before.seconds * 2
        seconds = min(seconds, self._probation_seconds * _LONGEST_PROBATIONS)
        self._probations[shard_id] = _Probation(time.monotonic() + seconds, seconds)

    def _replace(self, described: Sequence[Described]) -> None:
        """Under the lock."""
        before = self.live
        staying = [(description, shard) for description, shard in described if not shard.is_lost]
        self.live = LiveShards.of(before.epoch + 1, before.table, staying, self._host_id)
        self._left += [(before.epoch, shard) for shard in before.shards if shard not in self.live.shards]
        self._changed.notify_all()

    def _closable(self) -> list[LinkedShard]:
        """Those with which no lane can be calling any more."""
        with self._changed:
            oldest = min((epoch for epoch in self._taken if epoch is not None), default=self.live.epoch)
            gone = [shard for epoch, shard in self._left if epoch < oldest]
            self._left = [(epoch, shard) for epoch, shard in self._left if epoch >= oldest]
        return gone
