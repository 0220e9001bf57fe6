"""Gives one response: a turn through the stages, its events into the session, its sound no further ahead of the
listener than he needs."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext

from antiphon.errors import AntiphonError, NotFound
from antiphon.sessions.turn_journal import unknown_turn
from antiphon.telemetry import names, tracing
from antiphon.telemetry.first_packet import FirstPacketClock
from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.playback import Playback
from services.gateway.realtime.account import Account
from services.gateway.realtime.admitted_turn import TurnOpener, failure_of, usage_of
from services.gateway.realtime.core.answer import Answer
from services.gateway.realtime.core.outcomes import Outcomes, StartAnswer
from services.gateway.realtime.core.response import Response
from services.gateway.realtime.core.session import Session
from services.gateway.realtime.live_journals import LiveJournals
from services.gateway.realtime.prompting import Prompting
from services.gateway.realtime.resuming import ResumedAnswer
from services.gateway.realtime.sound_formats import SoundAgain, SoundOut
from services.gateway.realtime.speculation import HeldTurn
from services.gateway.turns.answer_place import Delivery
from services.gateway.turns.request import ReasoningDelta, SpeechDelta, TextDelta, ToolCallDelta, TurnEnd, TurnEvent
from services.gateway.turns.watch import TurnWatch

# A delta of the sound of so long is one frame, well below what clients take.
_DELTA_SAMPLES = 48_000


@dataclass(frozen=True, slots=True)
class Answering:
    """What every response of one session needs."""

    session: Session
    session_id: str
    # In which the connection was made.
    session_span: SpanContext
    account: Account
    turns: TurnOpener
    prompting: Prompting
    metrics: Metrics
    # None: responses do not go on elsewhere.
    journals: LiveJournals | None
    # Where the listener of this session is.
    playback: Playback
    ahead_seconds: float
    # Carries out what comes of a fact.
    perform: Callable[[Outcomes], None]
    # Waits while the client has too much to read.
    room: Callable[[], Awaitable[None]]

    async def run(
        self, start: StartAnswer, clock: FirstPacketClock, held: HeldTurn | None, turn_id: str | None = None
    ) -> None:
        """clock: started when the user had ended, or asked for it. held: the same turn, where it runs already.
        turn_id: of one that is asked again."""
        response, begun = start.response, held.opened if held is not None else None
        links = (self.session_span,) if begun is None else (self.session_span, begun.span)
        with tracing.span(
            names.SPAN_REALTIME_RESPONSE, self._attributes(response), parent=Context(), links=links
        ) as span:
            watch = TurnWatch(span, self.metrics, clock) if begun is None else begun.watch.answers(span, clock)
            try:
                asked = self.prompting.answer(response.options, start.items)
                kept = self.journals.begun(response.id, self.account.caller.tenant) if self.journals else None
                opened = self.turns.open(self.account, asked, watch, turn_id or response.id, begun, kept)
                said = _Said(self, response, watch, after_speech=start.after_speech)
                await self._tell(opened, said, watch, speaks=asked.speech is not None)
            except Exception as error:
                self._fail(response.id, error, watch, span)
            finally:
                if held is not None:
                    await held.close()

    async def go_on(self, resumed: ResumedAnswer, clock: FirstPacketClock) -> None:
        """With what another gateway was giving, in the same trace."""
        response, tenant = resumed.response, self.account.caller.tenant
        try:
            if self.journals is None:
                raise unknown_turn()
            begun = await self.journals.find(tenant, response.id)
        except NotFound as error:
            return await self._begin_again(resumed, clock, error)
        except Exception as error:
            return self._close_failed(response.id, error)
        attributes = {**self._attributes(response), names.RESUMED: True}
        with tracing.span(
            names.SPAN_REALTIME_RESPONSE, attributes, parent=begun.trace, links=(self.session_span,)
        ) as span:
            watch = TurnWatch(span, self.metrics, clock)
            watch.usage.audio_out_samples = resumed.place.samples
            try:
                again = SoundAgain.behind(resumed.place.samples, resumed.sound_bytes, response.options.encoding)
                kept = self.journals.taken_over(response.id, tenant, begun, again.first_sample)
                opened = self.turns.open(self.account, begun.request, watch, _another_turn(response), None, kept)
                said = _Said(self, response, watch, resumed=resumed, again=again)
                await self._tell(opened, said, watch, speaks=begun.request.speech is not None)
            except Exception as error:
                self._fail(response.id, error, watch, span)
        return None

    async def _tell(
        self,
        opened: AbstractAsyncContextManager[AsyncIterator[TurnEvent]],
        said: "_Said",
        watch: TurnWatch,
        *,
        speaks: bool,
    ) -> None:
        if speaks:
            watch.listened_to(self.prompting.gateway.first_sound_seconds)
        answer = self.session.answering(said.response.id)
        if answer is not None:
            answer.count_used = lambda: usage_of(watch.usage)
        async with opened as events:
            self.perform([*await self.turns.rate_limits(self.account.caller)])
            said.began = time.monotonic()
            async for event in events:
                if not await said.tell(event):
                    return

    async def _begin_again(self, resumed: ResumedAnswer, clock: FirstPacketClock, error: AntiphonError) -> None:
        """Its journal had not begun, or is gone."""
        response = resumed.response
        if resumed.may_be_asked_again:
            start = StartAnswer(response, tuple(self.session.items), after_speech=False)
            return await self.run(start, clock, None, _another_turn(response))
        return self._close_failed(response.id, error)

    def _fail(self, response_id: str, error: Exception, watch: TurnWatch, span: Span) -> None:
        tracing.mark_failed(span, error)
        answer = self.session.answering(response_id)
        if answer is not None:
            answer.used = usage_of(watch.usage)
        self._close_failed(response_id, error)

    def _close_failed(self, response_id: str, error: Exception) -> None:
        failure = failure_of(error)
        self.perform(self.session.close_answer(response_id, lambda answer: answer.failed(failure)))

    def _attributes(self, response: Response) -> tracing.Attributes:
        return {
            names.STAGE: "gateway",
            names.TENANT: self.account.caller.tenant,
            names.GEN_AI_OPERATION_NAME: "chat",
            names.GEN_AI_PROVIDER_NAME: "antiphon",
            names.GEN_AI_REQUEST_MODEL: self.prompting.model.model_id,
            names.GEN_AI_CONVERSATION_ID: self.session_id,
            names.GEN_AI_RESPONSE_ID: response.id,
            names.GEN_AI_OUTPUT_TYPE: "speech" if response.options.speaks else "text",
        }


def _another_turn(response: Response) -> str:
    """Of a response that goes on, on its own line of the bill."""
    return f"{response.id}.{secrets.token_hex(4)}"


class _Said:
    """One response's events on their way to its client. resumed: as far as he was told it by another gateway; again:
    of its sound, what is made again and not told."""

    def __init__(
        self,
        answering: Answering,
        response: Response,
        watch: TurnWatch,
        *,
        after_speech: bool = False,
        resumed: ResumedAnswer | None = None,
        again: SoundAgain | None = None,
    ) -> None:
        self._to, self.response, self._watch = answering, response, watch
        self._after_speech = after_speech
        self._delivery = Delivery(resumed.place if resumed is not None else None)
        self._known_samples = again.known_samples if again is not None else 0
        self._sound = SoundOut(response.options.encoding, again.known_bytes if again is not None else 0)
        # That comes of known samples, and the client has not.
        self._surplus = b""
        self._is_first_sound = resumed is None or not resumed.place.samples
        self.began = time.monotonic()

    async def tell(self, event: TurnEvent) -> bool:
        """False when the response has been stopped meanwhile."""
        match None if isinstance(event, ReasoningDelta) else self._delivery.news(event):
            case SpeechDelta(samples):
                for first in range(0, len(samples), _DELTA_SAMPLES):
                    await self._speak(samples[first : first + _DELTA_SAMPLES])
            case TextDelta(text):
                self._tell(lambda answer: answer.said(text))
                if not self.response.options.speaks:
                    self._watch.packet_sent(has_sound=False)
            case ToolCallDelta(_, name, arguments):
                self._tell(lambda answer: answer.called(name) if name is not None else answer.argued(arguments))
            case TurnEnd() as end:
                self._end(end)
            case _:
                pass
        await self._to.room()
        return self._to.session.answering(self.response.id) is not None

    async def _speak(self, samples: NDArray[np.float32]) -> None:
        samples = self._not_known(samples)
        if not len(samples):
            return
        await self._pace()
        data, count = self._surplus + self._sound.push(samples), len(samples)
        self._surplus = b""
        answer = self._to.session.answering(self.response.id)
        if answer is None:
            return
        answer.used = usage_of(self._watch.usage)
        now = time.monotonic()
        heard_by = self._to.playback.deliver(count, now)
        self._to.perform(self._to.session.answer_spoke(self.response.id, count, data, heard_by))
        self._watch.packet_sent(has_sound=True, sample_count=count)
        if self._is_first_sound and self._after_speech:
            self._to.metrics.realtime_turn_latency.observe(now - self.began)
        self._is_first_sound = False

    def _not_known(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        known = min(self._known_samples, len(samples))
        if known:
            self._known_samples -= known
            self._surplus += self._sound.push(samples[:known])
        return samples[known:]

    async def _pace(self) -> None:
        """Until the listener has less than he needs; meanwhile the stages fill what lies between, and wait too."""
        ends_at = self._to.playback.ends_at
        if ends_at is not None:
            await asyncio.sleep(max(0.0, ends_at - time.monotonic() - self._to.ahead_seconds))

    def _tell(self, fact: Callable[[Answer], Outcomes]) -> None:
        answer = self._to.session.answering(self.response.id)
        if answer is not None:
            answer.used = usage_of(self._watch.usage)
            self._to.perform(fact(answer))

    def _end(self, end: TurnEnd) -> None:
        session, response_id = self._to.session, self.response.id
        self._watch.ended(end)
        rest = self._surplus + self._sound.finish()
        if rest and not self._is_first_sound:
            self._to.perform(session.answer_spoke(response_id, 0, rest, self._to.playback.ends_at or 0.0))
        answer = session.answering(response_id)
        if answer is not None:
            answer.used = usage_of(self._watch.usage)
        is_cut = end.finish_reason == "length"
        session.played_until(max(time.monotonic(), self._to.playback.ends_at or 0.0))
        self._to.perform(session.close_answer(response_id, lambda answer: answer.ended(is_cut=is_cut)))
