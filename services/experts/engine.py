"""What a shard computes: calls of many trunks, one after the other, with the experts that it holds at that moment."""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch

from antiphon.errors import Conflict, Unavailable
from antiphon.experts.served_model import expert_model
from antiphon.experts.table import ExpertKey, ExpertModel, ShardLoad
from antiphon.model.config import OmniConfig
from antiphon.model.expert_weights import ExpertReader
from antiphon.model.placement import placement
from antiphon.model.thinker import PREFIX
from antiphon.model.weights import Checkpoint
from antiphon.scaling.signals import ExpertSignals
from antiphon.telemetry.shard_metrics import ShardCounts
from services.experts.config import ExpertsSettings
from services.experts.holdings import Holdings
from services.experts.load import ComputedCall, LoadMeter
from services.experts.requests import LayerCall
from services.experts.start_set import start_set
from services.experts.turns import Turns

_LOG = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.1
_LONGEST_CALL_SECONDS: Final = 3600.0

# Whether others can do without a shard that holds these.
MayGo = Callable[[frozenset[ExpertKey]], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class _Opened:
    model: ExpertModel
    holdings: Holdings


class ExpertsEngine:
    def __init__(self, settings: ExpertsSettings) -> None:
        self.settings = settings
        self._opened: _Opened | None = None
        self._turns = Turns()
        self._meter = LoadMeter()
        self._counted = threading.Lock()
        self._links = 0
        self.is_draining = False
        self.is_stopping = False

    @property
    def model(self) -> ExpertModel:
        return self._loaded().model

    @property
    def holdings(self) -> Holdings:
        return self._loaded().holdings

    @property
    def waiting(self) -> int:
        return self._turns.waiting

    def load(self) -> ShardLoad:
        return self._meter.load(trunks=self._links)

    def signals(self) -> ExpertSignals:
        """Zeros until it has loaded."""
        if self._opened is None:
            return ExpertSignals(0.0, 0.0, 0.0, 0.0)
        load, opened = self.load(), self._opened
        return ExpertSignals(
            queued_p95_seconds=load.queued_p95_microseconds / 1e6,
            utilisation=load.utilisation,
            capacity=opened.holdings.capacity,
            experts=len(opened.model.keys),
        )

    def counts(self) -> ShardCounts:
        load = self.load()
        return ShardCounts(
            queued_p95_seconds=load.queued_p95_microseconds / 1e6,
            computed_p50_seconds=load.computed_p50_microseconds / 1e6,
            utilisation=load.utilisation,
            held=len(self.holdings.held),
            links=load.trunks,
            calls=load.calls,
            pairs=load.pairs,
        )

    def check(self) -> None:
        """Raises when it cannot answer any more."""
        if self._opened is not None:
            self._opened.holdings.check()

    async def start(self) -> None:
        """Reads what it holds at the beginning, which takes a moment."""
        self._opened = await asyncio.to_thread(self._open)
        self._opened.holdings.start()

    async def drain(self, grace_seconds: float, may_go: MayGo | None = None) -> None:
        """Tells that it is going, and answers until it may go and nobody has called for a while, or until the grace is
        over."""
        self.is_draining = True
        try:
            await self._until_it_may_go(time.monotonic() + grace_seconds, may_go)
        finally:
            self.is_stopping = True

    async def _until_it_may_go(self, over: float, may_go: MayGo | None) -> None:
        calls, since = -1, 0.0
        while not self.is_stopping and (now := time.monotonic()) < over:
            if self._meter.calls != calls:
                calls, since = self._meter.calls, now
            elif now - since >= self.settings.idle_seconds and await self._may_go(may_go, over - now):
                break
            await asyncio.sleep(min(_LOOK_SECONDS, max(over - now, 0.0)))

    async def _may_go(self, may_go: MayGo | None, within_seconds: float) -> bool:
        """Not while that cannot be said."""
        try:
            async with asyncio.timeout(within_seconds):
                return may_go is None or await may_go(self.holdings.held)
        except Exception:
            _LOG.debug("Whether other expert shards can do without this one is not known now.", exc_info=True)
            return False

    async def close(self) -> None:
        self.is_stopping = True
        if self._opened is not None:
            await asyncio.to_thread(self._opened.holdings.close)

    @contextmanager
    def link(self) -> Iterator[None]:
        """Counts one for as long as the block lasts. Raises Unavailable without a place for it."""
        with self._counted:
            if self._links >= self.settings.links:
                raise Unavailable(f"All {self.settings.links} links to this expert shard are taken.")
            self._links += 1
        try:
            yield
        finally:
            with self._counted:
                self._links -= 1

    @torch.inference_mode()
    def compute(self, call: LayerCall, arrived: float, timeout_seconds: float) -> ComputedCall:
        """On any thread: waits for its turn, then writes the result where the call wants it. Raises DeadlineExceeded
        when its time is over before, Conflict without an expert, and Unavailable when the shard stops."""
        if self.is_stopping:
            raise Unavailable("The expert shard is stopping. Call another copy.")
        with self.turn(arrived + min(timeout_seconds, _LONGEST_CALL_SECONDS)):
            began = time.monotonic()
            try:
                self.holdings.of_layer(call.layer).answer(call.pairs, call.result, call.into)
            except KeyError as missing:
                raise Conflict(f"Expert {missing} of layer {call.layer} is not held here (any more).") from None
            computed = ComputedCall(arrived, began, time.monotonic())
            self._meter.add(computed, len(call.pairs.experts))
            return computed

    @contextmanager
    def turn(self, deadline: float) -> Iterator[None]:
        """Nothing else is computed for as long as the block lasts. Raises DeadlineExceeded."""
        self._turns.take(deadline)
        try:
            yield
        finally:
            self._turns.give()

    def _loaded(self) -> _Opened:
        if self._opened is None:
            raise Unavailable("The expert shard is still loading. Try again soon.")
        return self._opened

    def _open(self) -> _Opened:
        where = placement(self.settings.device, self.settings.dtype)
        config = OmniConfig.from_checkpoint(self.settings.checkpoint).thinker.text
        checkpoint = Checkpoint(self.settings.checkpoint)
        model = expert_model(checkpoint, PREFIX, config, where.dtype)
        reader = ExpertReader.of(checkpoint, PREFIX, config, where.dtype, where.device)
        holdings = Holdings(
            reader,
            model.keys,
            self.settings.capacity or len(model.keys),
            device=where.device,
            linger_seconds=self.settings.linger_seconds,
        )
        holdings.load_now(start_set(self.settings.holds, self.settings.copies, model))
        return _Opened(model, holdings)
