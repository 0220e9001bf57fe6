"""Asks the shards, again and again, what they hold, links those that can be called, and tells the roster."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from antiphon.errors import AntiphonError
from antiphon.experts.calls import ShardLink
from antiphon.experts.known_addresses import KnownAddresses
from antiphon.experts.table import ExpertKey, ShardDescription, TrunkRouting
from antiphon.telemetry.metrics import process_metrics
from services.thinker.open_questions import OpenQuestions
from services.thinker.shard_roster import Described, LinkedShard, ShardRoster
from services.thinker.trunk_turns import LANES

_LOG = logging.getLogger(__name__)

# Addresses of all shards, as far as they are known.
ShardAddresses = Callable[[], Awaitable[Sequence[str]]]

# Between two looks while an expert has no copy, for which steps may be waiting.
_HURRY_SECONDS: Final = 0.1
_SAY_EVERY_SECONDS: Final = 10.0
# What came by then goes into the next table, whoever is still silent.
_TABLE_SECONDS: Final = 0.1


class ShardNetwork(Protocol):
    async def describe(self, address: str, *, timeout_seconds: float) -> ShardDescription: ...

    def link(self, shard: ShardDescription) -> ShardLink:
        """Waits until it is open. Both raise one of the family when the shard cannot be reached."""
        ...

    async def report(self, address: str, routing: TrunkRouting, *, timeout_seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class WatchLimits:
    every_seconds: float
    # For an answer to one question.
    answer_seconds: float
    # One that has not answered for so long is not called any more.
    forget_seconds: float


class ShardWatch:
    def __init__(
        self, roster: ShardRoster, network: ShardNetwork, addresses: ShardAddresses, limits: WatchLimits
    ) -> None:
        self._roster, self._network, self._addresses, self._limits = roster, network, addresses, limits
        self._known = KnownAddresses(limits.forget_seconds)
        # By address what each shard told last, and when.
        self._told: dict[str, tuple[ShardDescription, float]] = {}
        # Something came, or all are to be asked.
        self._look_now, self._asks = asyncio.Event(), True
        self._looked = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._questions: OpenQuestions[str, ShardDescription | None] = OpenQuestions("asking", self._look_now.set)
        self._linking: OpenQuestions[str, LinkedShard | None] = OpenQuestions("linking", self._look_now.set)
        self._refused: set[str] = set()
        self._said: Sequence[ExpertKey] = ()

    async def start(self) -> None:
        """Returns once every expert has a copy, however long that takes; what is missing is logged."""
        loop = asyncio.get_running_loop()

        def ask() -> None:
            loop.call_soon_threadsafe(self._ask_now)

        self._roster.on_loss = ask
        self._task = asyncio.create_task(self._work(), name="expert shards")
        async with self._looked:
            await self._looked.wait_for(lambda: not self._roster.missing())

    async def close(self) -> None:
        """Once no lane calls any more."""
        self._roster.on_loss = lambda: None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._questions.close()
        for linked in await self._linking.close():
            if linked is not None:
                linked.close()
        self._roster.close()

    @property
    def addresses(self) -> Sequence[str]:
        """Of the shards that are there."""
        return [shard.address for shard in self._roster.live.shards]

    async def _work(self) -> None:
        said_at = complained_at = float("-inf")
        while True:
            self._look_now.clear()
            asks, self._asks = self._asks, False
            try:
                await self._look(asks=asks)
            except Exception:
                if time.monotonic() > complained_at + _SAY_EVERY_SECONDS:
                    complained_at = time.monotonic()
                    _LOG.exception("The expert shards could not be looked at. It is tried again.")
            missing = self._roster.missing()
            process_metrics().experts.set_copies(shards=len(self._roster.live.shards), missing=len(missing))
            if missing != self._said or (missing and time.monotonic() > said_at + _SAY_EVERY_SECONDS):
                self._say(missing)
                said_at = time.monotonic()
            seconds = min(_HURRY_SECONDS, self._limits.every_seconds) if missing else self._limits.every_seconds
            async with self._looked:
                self._looked.notify_all()
            is_late = await _set_within(self._look_now, seconds)
            self._asks |= bool(missing) or not is_late

    def _ask_now(self) -> None:
        self._asks = True
        self._look_now.set()

    async def _look(self, *, asks: bool) -> None:
        """asks: else only what comes late is taken in, which must not set off more questions."""
        addresses = self._known.to_ask(await self._addresses(), time.monotonic()) if asks else ()
        questions = {address: partial(self._ask, address) for address in addresses}
        answers = (await self._questions.within(questions, _TABLE_SECONDS)).values()
        now = time.monotonic()
        for answer in answers:
            if answer is not None:
                self._told[answer.address] = answer, now
        oldest = now - self._limits.forget_seconds
        self._told = {
            address: told for address, told in self._told.items() if address in self._known and told[1] >= oldest
        }
        fresh = {answer.shard_id for answer in answers if answer is not None}
        self._roster.publish(await self._linked(fresh))

    async def _ask(self, address: str) -> ShardDescription | None:
        try:
            told = await self._network.describe(address, timeout_seconds=self._limits.answer_seconds)
        except AntiphonError as error:
            self._known.failed(address, error, time.monotonic())
            _LOG.debug("The expert shard at %s does not answer: %s", address, error.message)
            return None
        self._known.answered(address, time.monotonic())
        return told

    async def _linked(self, fresh: set[str]) -> list[Described]:
        """Those that are linked already, and those that can be now: who answers, and is not on probation, unless an
        expert would have no copy without it."""
        known = {shard.shard_id: shard for shard in self._roster.live.shards}
        # A shard of several addresses is one.
        told = {description.shard_id: description for description, _ in self._told.values()}
        linked = [(description, known[shard_id]) for shard_id, description in told.items() if shard_id in known]
        unlinked = [description for shard_id, description in told.items() if shard_id not in known]
        others = [each for each in unlinked if each.shard_id in fresh and self._fits(each)]
        avoided = self._roster.on_probation()
        held = frozenset[ExpertKey]().union(*(each.held for each, _ in linked))
        held = held.union(*(each.held for each in others if each.shard_id not in avoided))
        welcome = [each for each in others if each.shard_id not in avoided or not each.held <= held]
        links = {each.shard_id: partial(self._link, each) for each in welcome}
        opened = await self._linking.within(links, _TABLE_SECONDS)
        return linked + self._described([each for each in opened.values() if each is not None], told)

    def _described(self, opened: Sequence[LinkedShard], told: Mapping[str, ShardDescription]) -> list[Described]:
        """Those that were not forgotten while they were linked."""
        for each in opened:
            if each.shard_id not in told:
                each.close()
        return [(told[each.shard_id], each) for each in opened if each.shard_id in told]

    def _fits(self, description: ShardDescription) -> bool:
        if description.model == self._roster.model:
            return True
        if description.shard_id not in self._refused:
            self._refused.add(description.shard_id)
            _LOG.error(
                "The shard at %s has experts of another model and is not called: expected %s; it has %s. Start it with "
                "the checkpoint and the type of this Thinker.",
                description.address,
                self._roster.model,
                description.model,
            )
        return False

    async def _link(self, description: ShardDescription) -> LinkedShard | None:
        links: list[ShardLink] = []
        try:
            for _ in range(LANES):
                links.append(await asyncio.to_thread(self._network.link, description))
        except AntiphonError as error:
            _LOG.warning("The expert shard at %s cannot be linked: %s", description.address, error.message)
            for link in links:
                link.close()
            return None
        return LinkedShard(description.shard_id, description.address, tuple(links))

    def _say(self, missing: Sequence[ExpertKey]) -> None:
        if missing:
            layer, expert = missing[0]
            _LOG.warning(
                "%d experts have no copy on any shard, such as expert %d of layer %d; steps wait for them.",
                len(missing),
                expert,
                layer,
            )
        elif self._said:
            _LOG.info("Every expert has a copy, on %d shards.", len(self._roster.live.shards))
        self._said = missing


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
