"""Streamed chat answers, begun here or gone on with: journalled, conducted, and told event by event.

A stream ends early where it is no longer this gateway's to give: when it stops, or another took the answer over.
"""

from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from antiphon.errors import NotFound, Unavailable
from antiphon.sessions.transcripts import Transcripts
from antiphon.sessions.turn_journal import taken_over
from antiphon.tenancy.caller import Caller
from services.gateway.admission import Admitted, settled_at_end
from services.gateway.chat.events import ChatAnswer, Resumability
from services.gateway.chat.telling import AskedAnswer
from services.gateway.config import GatewaySettings
from services.gateway.http.event_stream import EventFeed, EventStream, Stop, until_disconnected
from services.gateway.http.request_body import BodyShare
from services.gateway.transcripts import OwnTranscripts
from services.gateway.turns.answer_journal import AnswerJournal, AnswerJournals
from services.gateway.turns.answer_place import AnswerPlace, Delivery
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.course import FROM_THE_BEGINNING, TurnCourse
from services.gateway.turns.gate import TurnGate
from services.gateway.turns.watch import TurnWatch

DRAINING: Final = "server_draining"


@dataclass(frozen=True, slots=True)
class AdmittedAnswer:
    """Of one request; it has been let in."""

    http: Request
    caller: Caller
    asked: AskedAnswer
    watch: TurnWatch
    admitted: Admitted


@dataclass(frozen=True, slots=True)
class ChatStreams:
    settings: GatewaySettings
    conductor: Conductor
    transcripts: Transcripts
    gate: TurnGate
    # None keeps nothing: no answer goes on elsewhere.
    journals: AnswerJournals | None

    async def begin(self, stream: AdmittedAnswer, opened: AsyncExitStack) -> Response:
        """What fails before the first event still gets its own status."""
        journal = None
        if self.journals is not None:
            answer_id, kept = stream.asked.identity.answer_id, stream.asked.kept()
            begun = self.journals.begun(stream.caller.tenant, answer_id, kept, stream.watch.usage)
            journal = await opened.enter_async_context(begun)
        return await self._give(stream, journal, Delivery(), opened)

    async def find(self, caller: Caller, answer_id: str, share: BodyShare) -> AskedAnswer:
        """share: grows by what is read, before it is. Raises AtCapacity, and NotFound for another tenant's too."""
        try:
            if self.journals is not None:
                return AskedAnswer.of(await self.journals.find(caller.tenant, answer_id, share.grow))
        except NotFound as error:
            raise unknown_answer() from error
        raise NotFound("This server keeps no answers to go on with. Ask again.")

    async def resume(self, stream: AdmittedAnswer, had: AnswerPlace | None, opened: AsyncExitStack) -> Response:
        """From now on nobody else gives this answer. Raises NotFound."""
        if self.journals is None:
            raise unknown_answer()
        usage = stream.watch.usage
        usage.audio_out_samples = had.samples if had is not None else 0
        taken = self.journals.taken_over(stream.caller.tenant, stream.asked.identity.answer_id, usage)
        return await self._give(stream, await opened.enter_async_context(taken), Delivery(had), opened)

    async def _give(
        self, stream: AdmittedAnswer, journal: AnswerJournal | None, delivery: Delivery, opened: AsyncExitStack
    ) -> Response:
        asked, watch = stream.asked, stream.watch
        course = FROM_THE_BEGINNING
        if journal is not None:
            course = TurnCourse(journal.known, delivery.place.samples, journal.recorder)
        limits = replace(self.conductor.limits, default_answer_tokens=asked.default_answer_tokens)
        conductor = replace(self.conductor, limits=limits)
        if asked.request.speech is not None:
            watch.listened_to(self.settings.first_sound_seconds)
        turn = await opened.enter_async_context(conductor.open_turn(asked.request, watch, course))
        events = await opened.enter_async_context(aclosing(settled_at_end(turn, stream.admitted)))
        feed = EventFeed(events, self.settings.keep_alive_seconds, self._stops(journal))
        await opened.enter_async_context(aclosing(feed))
        await until_disconnected(stream.http.receive, feed.first())
        resumability = Resumability(delivery)
        if journal is not None:
            await journal.wait(self.settings.journal_patience_seconds)
            resumability = Resumability(delivery, journal.is_kept)
        transcripts = OwnTranscripts(self.transcripts, stream.caller.tenant)
        answer = ChatAnswer(asked.identity, asked.options, watch, transcripts, resumability)
        return EventStream(answer.chunks(feed.all()), opened.pop_all())

    def _stops(self, journal: AnswerJournal | None) -> list[Stop]:
        advice = "Ask again." if journal is None else "Go on at another one, from the last event that came."
        stops = [Stop(self.gate.cut, Unavailable(f"This server is stopping. {advice}", code=DRAINING))]
        if journal is not None:
            stops.append(Stop(journal.recorder.taken_over, taken_over()))
        return stops


def unknown_answer() -> NotFound:
    return NotFound("The answer is unknown, was not streamed, or has expired. Ask again.", param="answer_id")
