"""Has the next prompt of a session computed as far as it is known: one preparation at a time, the newest wish next."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from antiphon.telemetry import tracing
from antiphon.telemetry.metrics import Metrics
from services.gateway.admission import on_behalf_of
from services.gateway.realtime.account import Account
from services.gateway.realtime.admitted_turn import TurnOpener
from services.gateway.realtime.core.outcomes import AnswerComing
from services.gateway.realtime.prompting import Prompting

_LOG = logging.getLogger(__name__)

# Runs it for as long as the connection lasts.
Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


@dataclass(slots=True)
class Preparing:
    """Nobody waits for it: what fails is logged, and where every turn has its place nothing is begun."""

    account: Account
    turns: TurnOpener
    prompting: Prompting
    metrics: Metrics
    spawn: Spawn
    _wanted: AnswerComing | None = field(default=None, init=False)
    _done: AnswerComing | None = field(default=None, init=False)
    _running: asyncio.Task[None] | None = field(default=None, init=False)

    def begin(self, coming: AnswerComing) -> None:
        self._wanted = coming
        if self._running is None or self._running.done():
            self._running = self.spawn(self._run(), "realtime preparation")

    def stop(self) -> None:
        """An answer is wanted: it computes what is missing itself, and more urgently."""
        self._wanted = None
        if self._running is not None:
            self._running.cancel()
            self._running = None

    async def _run(self) -> None:
        while self._wanted is not None:
            coming, self._wanted = self._wanted, None
            if coming != self._done and self.turns.gate.has_room_ahead():
                await self._prepare(coming)

    async def _prepare(self, coming: AnswerComing) -> None:
        try:
            asked = on_behalf_of(self.account.caller, self.prompting.answer(coming.options, coming.items))
            if not await self.turns.may_ask(self.account.caller):
                return
            with self.turns.gate.ahead(), tracing.of_tenant(self.account.caller.tenant):
                await self.turns.conductor.prepare(asked)
        except asyncio.CancelledError:
            self.metrics.count_preparation("cancelled")
            raise
        except Exception as error:
            self.metrics.count_preparation("failed")
            _LOG.info("a turn could not be prepared: %r", error)
        else:
            self.metrics.count_preparation("done")
            self._done = coming
