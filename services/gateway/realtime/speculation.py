"""Begins the answer when a user pauses, and holds it until his turn has ended: it becomes the response if nothing else
was said and nothing else was changed, and is thrown away otherwise.

Until then it fills its bounded pipe and no more. It is not charged: who is answered pays for the answer, once.
"""

import asyncio
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext

from antiphon.telemetry import names, tracing
from antiphon.telemetry.first_packet import FirstPacketClock
from antiphon.telemetry.metrics import Metrics
from services.gateway.admission import on_behalf_of
from services.gateway.realtime.account import Account
from services.gateway.realtime.admitted_turn import LateProgress, OpenTurn, TurnOpener
from services.gateway.realtime.core.outcomes import AnswerForeseen, StartAnswer
from services.gateway.realtime.preparing import Spawn
from services.gateway.realtime.prompting import Prompting
from services.gateway.turns.course import TurnCourse
from services.gateway.turns.recovery import with_seeds
from services.gateway.turns.request import TurnRequest
from services.gateway.turns.watch import TurnWatch


class HeldTurn:
    """Runs in a task of its own from its beginning to its end, whoever takes its events."""

    def __init__(self, foreseen: AnswerForeseen) -> None:
        self.foreseen = foreseen
        # None before it has begun and after it has ended.
        self.opened: OpenTurn | None = None
        self._is_over, self._is_closed = asyncio.Event(), asyncio.Event()

    async def run(self, turns: TurnOpener, asked: TurnRequest, span: Span, metrics: Metrics) -> None:
        watch = TurnWatch(span, metrics, FirstPacketClock())
        try:
            with turns.gate.ahead():
                asked, progress = with_seeds(asked), LateProgress()
                async with turns.conductor.open_turn(asked, watch, TurnCourse(log=progress)) as events:
                    self.opened = OpenTurn(asked, events, watch, span.get_span_context(), progress)
                    await self._is_over.wait()
        finally:
            self.opened = None
            self._is_closed.set()

    def release(self) -> None:
        """Nobody wants what is still to come of it: every stage is stopped."""
        self._is_over.set()

    async def close(self) -> None:
        """Returns when the stages have been stopped."""
        self.release()
        await self._is_closed.wait()


@dataclass(slots=True)
class Speculation:
    """Of one session; at most one turn is held."""

    session_id: str
    session_span: SpanContext
    account: Account
    turns: TurnOpener
    prompting: Prompting
    metrics: Metrics
    spawn: Spawn
    # Not begun while a larger share of the gateway's turns is open.
    most_load: float
    # For so long it is held.
    seconds: float
    _held: HeldTurn | None = field(default=None, init=False)
    _expiry: asyncio.TimerHandle | None = field(default=None, init=False)

    def begin(self, foreseen: AnswerForeseen) -> None:
        self.drop()
        if not self.turns.gate.has_room_ahead(self.most_load):
            return
        self._held = HeldTurn(foreseen)
        self.spawn(self._run(self._held), "realtime speculation")
        self._expiry = asyncio.get_running_loop().call_later(self.seconds, self.drop)

    def drop(self) -> None:
        held = self._let_go()
        if held is not None:
            held.release()
            self.metrics.count_speculative_turn("wasted")

    def take(self, start: StartAnswer) -> HeldTurn | None:
        """The held turn, if it is the one that is asked for. Whoever takes it closes it."""
        held = self._held
        if (
            held is None
            or held.opened is None
            or (held.foreseen.options, held.foreseen.items) != (start.response.options, start.items)
        ):
            self.drop()
            return None
        self._let_go()
        self.metrics.count_speculative_turn("used")
        return held

    def _let_go(self) -> HeldTurn | None:
        held, self._held = self._held, None
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        return held

    async def _run(self, held: HeldTurn) -> None:
        attributes = {
            names.STAGE: "gateway",
            names.TENANT: self.account.caller.tenant,
            names.GEN_AI_CONVERSATION_ID: self.session_id,
        }
        with (
            tracing.span(
                names.SPAN_REALTIME_SPECULATION, attributes, parent=Context(), links=(self.session_span,)
            ) as span,
            tracing.of_tenant(self.account.caller.tenant),
        ):
            try:
                if await self.turns.may_ask(self.account.caller):
                    asked = self.prompting.answer(held.foreseen.options, held.foreseen.items)
                    await held.run(self.turns, on_behalf_of(self.account.caller, asked), span, self.metrics)
            except Exception as error:
                tracing.mark_failed(span, error)  # what is asked in earnest will fail likewise, and says so
