"""One keeper's rule over the placement, for as long as its epoch is obeyed: looks at the shards, decides where experts
shall be, and has them moved there a few at a time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from antiphon.errors import AntiphonError, Conflict, DeadlineExceeded
from antiphon.experts.load import added
from antiphon.experts.moves import MoveRules, ShardState, Step, next_steps
from antiphon.experts.placement import PlacementRules, ShardRoom, place
from antiphon.experts.table import ExpertKey, ExpertModel, ShardDescription
from services.experts.epochs import next_epoch
from services.experts.keeper_config import KeeperSettings
from services.experts.keeper_desk import ShardDesk

_LOG = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")


class Reign:
    def __init__(
        self,
        shard_id: str,
        model: ExpertModel,
        desk: ShardDesk,
        settings: KeeperSettings,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shard_id, self._model, self._desk, self._settings, self._now = shard_id, model, desk, settings, now
        self._moves = MoveRules(settings.loads_at_once, settings.least_copies)
        self._places = PlacementRules(
            least_copies=settings.least_copies,
            redundancy=settings.redundancy,
            spare_experts=settings.spare_experts,
            keep_below=settings.keep_below,
            aim=settings.aim,
        )
        # None until it has been taken, and after a shard did not answer what it was told: what that one obeys is then
        # not known, and only a greater epoch settles it.
        self.epoch: int | None = None
        # The greatest that this reign has taken.
        self._claimed: int | None = None
        # By shard: what it was told last, and since when what it holds has been ready.
        self._assigned: dict[str, frozenset[ExpertKey]] = {}
        self._ready: dict[str, dict[ExpertKey, float]] = {}
        # By address, those that answered last and when, for as long as they may only be silent.
        self._seen: dict[str, tuple[ShardDescription, float]] = {}
        self._pairs: NDArray[np.float32] = np.zeros((model.layers, model.experts), dtype=np.float32)
        self._target: dict[str, frozenset[ExpertKey]] = {}
        self._missing = 0
        self._planned_at = self._changed_at = float("-inf")
        self._held: dict[str, frozenset[ExpertKey]] = {}

    async def round(self, addresses: Sequence[str]) -> None:
        """Looks, plans if it is time to, and takes the next step. Raises Conflict when another keeper is obeyed."""
        with_loads = self._is_time()
        described = await self._described(addresses, with_loads=with_loads)
        if with_loads:
            self._read_loads(described)
        obeying = await self._obeying([each for each in described if not each.is_draining])
        self._note_ready(obeying)
        await self._plan(obeying)
        steps = next_steps(self._states(obeying), self._target, self._pairs, self._moves)
        await self._tell(obeying, steps)

    def _is_time(self) -> bool:
        """And what was planned last is there, or does not come."""
        every, is_there = self._settings.plan_every_seconds, self._held == self._target
        since = self._planned_at if is_there else max(self._planned_at, self._changed_at)
        return self._now() >= since + every

    async def _described(self, addresses: Sequence[str], *, with_loads: bool) -> list[ShardDescription]:
        """Of those that answer; of a shard with several addresses by one."""
        answers = await _all(self._desk.describe(address, with_loads=with_loads) for address in addresses)
        now, found = self._now(), dict[str, ShardDescription]()
        for address, answer in zip(addresses, answers, strict=True):
            if isinstance(answer, ShardDescription):
                self._seen[address] = answer, now
                if answer.model == self._model:
                    found[answer.shard_id] = answer
            elif not isinstance(answer, DeadlineExceeded):
                self._seen.pop(address, None)
        oldest = now - self._settings.silence_seconds
        self._seen = {address: each for address, each in self._seen.items() if each[1] >= oldest}
        return list(found.values())

    def _read_loads(self, described: Collection[ShardDescription]) -> None:
        routings = [routing for shard in described for routing in shard.routings]
        shape = (self._model.layers, self._model.experts)
        pairs = added(routings, shape, self._settings.routing_half_life_seconds).pairs
        # With less, what was asked before tells more of what will be.
        if pairs.sum() >= self._settings.least_pairs * pairs.size:
            self._pairs = pairs

    async def _obeying(self, shards: Sequence[ShardDescription]) -> list[ShardDescription]:
        """Those that have taken the epoch, as they were after that: no other keeper changes them any more."""
        epoch = self.epoch = self._taken([shard.epoch for shard in shards])
        others = [shard for shard in shards if shard.epoch != epoch]
        taken = await _all(self._desk.assign(shard.address, epoch, None) for shard in others)
        _raise_conflict(taken)
        new = [shard for shard, answer in zip(others, taken, strict=True) if answer is None]
        fresh = await _all(self._desk.describe(shard.address) for shard in new)
        seen = [each for each in fresh if isinstance(each, ShardDescription) and each.epoch == epoch]
        return [shard for shard in shards if shard.epoch == epoch] + seen

    def _taken(self, epochs: Sequence[int]) -> int:
        """The epoch of this reign. Raises Conflict when somebody has taken a greater one since it began."""
        if self._claimed is not None and max(epochs, default=0) > self._claimed:
            raise Conflict(f"Epoch {max(epochs)} was taken after {self._claimed}.")
        if self.epoch is not None:
            return self.epoch
        self._claimed = next_epoch([*epochs, self._claimed or 0], self._shard_id)
        self._assigned.clear()
        _LOG.info("Keeps the placement of %d shards, epoch %d.", len(epochs), self._claimed)
        return self._claimed

    def _note_ready(self, shards: Sequence[ShardDescription]) -> None:
        now = self._now()
        held = {shard.shard_id: shard.held for shard in shards}
        if held != self._held:
            self._held, self._changed_at = held, now
        before, self._ready = self._ready, {}
        for shard in shards:
            since = before.get(shard.shard_id, {})
            self._ready[shard.shard_id] = {key: since.get(key, now) for key in shard.held}

    async def _plan(self, obeying: Sequence[ShardDescription]) -> None:
        """When it is time, and at once when shards have come or gone."""
        staying = {shard.shard_id: shard for shard, _ in self._seen.values() if not shard.is_draining}
        members = {shard.shard_id: shard for shard in obeying} | {
            name: shard for name, shard in staying.items() if name in self._target
        }
        if not obeying or (members.keys() == self._target.keys() and not self._is_time()):
            return
        rooms = [ShardRoom(name, each.capacity, each.host_id, each.zone) for name, each in members.items()]
        current = {name: self._target.get(name, each.held) for name, each in members.items()}
        placement = await asyncio.to_thread(place, self._pairs, rooms, self._places, current)
        self._target, self._planned_at = placement.by_shard(), self._now()
        self._say_missing(len(placement.missing))

    def _say_missing(self, missing: int) -> None:
        if missing and missing != self._missing:
            _LOG.error(
                "%d of %d experts fit on none of %d shards. Start more shards, or shards with more capacity.",
                missing,
                self._pairs.size,
                len(self._target),
            )
        self._missing = missing

    def _states(self, obeying: Sequence[ShardDescription]) -> list[ShardState]:
        seen = self._now() - self._settings.settle_seconds
        return [
            ShardState(
                name=shard.shard_id,
                capacity=shard.capacity,
                held=shard.held,
                settled=frozenset(key for key, since in self._ready[shard.shard_id].items() if since <= seen),
                asked=self._assigned.get(shard.shard_id, shard.held) - shard.held,
            )
            for shard in obeying
        ]

    async def _tell(self, obeying: Sequence[ShardDescription], steps: Mapping[str, Step]) -> None:
        epoch, told = self.epoch, []
        for shard in obeying:
            step, before = steps.get(shard.shard_id), self._assigned.get(shard.shard_id, shard.held)
            if step is not None and step.assignment != before:
                told.append((shard, step.assignment))
        if epoch is None:
            return
        answers = await _all(self._desk.assign(shard.address, epoch, experts) for shard, experts in told)
        for (shard, experts), answer in zip(told, answers, strict=True):
            if answer is None:
                self._assigned[shard.shard_id] = experts
                continue
            self.epoch = None
            if not isinstance(answer, Conflict):
                _LOG.warning("The expert shard at %s did not take what it shall hold: %s", shard.address, answer)
        _raise_conflict(answers)


async def _all(asked: Iterable[Awaitable[AnswerT]]) -> list[AnswerT | AntiphonError]:
    return await asyncio.gather(*map(_answer, asked))


async def _answer(asked: Awaitable[AnswerT]) -> AnswerT | AntiphonError:
    try:
        return await asked
    except AntiphonError as error:
        return error


def _raise_conflict(answers: Iterable[object]) -> None:
    for answer in answers:
        if isinstance(answer, Conflict):
            raise answer
