"""Writes down what users have said: the served model itself, asked to, one sound after the other."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from antiphon.errors import AtCapacity
from antiphon.telemetry import names, tracing
from antiphon.telemetry.first_packet import FirstPacketClock
from antiphon.telemetry.metrics import Metrics
from services.gateway.realtime.account import Account
from services.gateway.realtime.admitted_turn import TurnOpener, failure_of, usage_of
from services.gateway.realtime.core.outcomes import Outcomes, Transcribe
from services.gateway.realtime.core.session import Session
from services.gateway.realtime.prompting import Prompting
from services.gateway.turns.request import TextDelta
from services.gateway.turns.watch import TurnWatch


@dataclass(slots=True)
class Transcribing:
    session: Session
    session_id: str
    session_span: SpanContext
    account: Account
    turns: TurnOpener
    prompting: Prompting
    metrics: Metrics
    most_waiting: int
    perform: Callable[[Outcomes], None]
    _waiting: asyncio.Queue[Transcribe] = field(default_factory=asyncio.Queue)

    def ask(self, wanted: Transcribe) -> None:
        if self._waiting.qsize() >= self.most_waiting:
            failure = failure_of(AtCapacity("Too many transcriptions of this session are waiting."))
            return self.perform(self.session.not_transcribed(wanted.item_id, wanted.content_index, failure))
        self._waiting.put_nowait(wanted)
        return None

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            wanted = await self._waiting.get()
            self.perform(await self._outcome(wanted))

    async def _outcome(self, wanted: Transcribe) -> Outcomes:
        attributes = {
            names.STAGE: "gateway",
            names.TENANT: self.account.caller.tenant,
            names.GEN_AI_CONVERSATION_ID: self.session_id,
        }
        with tracing.span(
            names.SPAN_REALTIME_TRANSCRIPTION, attributes, parent=Context(), links=(self.session_span,)
        ) as span:
            watch = TurnWatch(span, self.metrics, FirstPacketClock())
            try:
                asked = self.prompting.transcription(wanted.item_id, wanted.sound)
                turn_id = f"{wanted.item_id}_transcription"
                # The answer to the same words is what somebody waits for.
                async with self.turns.open(self.account, asked, watch, turn_id, takes_place=False) as events:
                    text = "".join([event.text async for event in events if isinstance(event, TextDelta)])
            except Exception as error:
                tracing.mark_failed(span, error)
                return self.session.not_transcribed(wanted.item_id, wanted.content_index, failure_of(error))
            usage = usage_of(watch.usage)
            return self.session.transcribed(wanted.item_id, wanted.content_index, text.strip(), usage)
