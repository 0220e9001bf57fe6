"""Puts together what one live session consists of."""

import secrets
import time
from dataclasses import dataclass, replace
from typing import Final

from opentelemetry.trace import SpanContext
from starlette.websockets import WebSocket

from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.playback import Playback
from services.gateway.http.error_envelope import ErrorBody
from services.gateway.http.media_source import MediaBudget, MediaSource
from services.gateway.realtime.account import Account
from services.gateway.realtime.admitted_turn import TurnOpener
from services.gateway.realtime.ahead import Ahead
from services.gateway.realtime.answering import Answering
from services.gateway.realtime.commands import Commands, Terms
from services.gateway.realtime.connection import Beginning, Connection, Parts
from services.gateway.realtime.core.items import InputSound, UserItem
from services.gateway.realtime.core.outcomes import Transcribe
from services.gateway.realtime.core.session import Session
from services.gateway.realtime.dialect.frames import Numbering
from services.gateway.realtime.dialect.items import ItemReader
from services.gateway.realtime.dialect.server_events import Teller
from services.gateway.realtime.entry import Entry
from services.gateway.realtime.keeping import Keeping
from services.gateway.realtime.kept_session import KeptSession
from services.gateway.realtime.live_journals import LiveJournals
from services.gateway.realtime.outbox import Outbox
from services.gateway.realtime.preparing import Preparing
from services.gateway.realtime.prompting import Prompting
from services.gateway.realtime.resuming import Missed, answers_again, missed_since
from services.gateway.realtime.retention import PromptBounds, Retention
from services.gateway.realtime.session_keeper import Found, SessionKeeper, new_connection_id, unknown_session
from services.gateway.realtime.speculation import Speculation
from services.gateway.realtime.transcribing import Transcribing
from services.gateway.turns.answer_journal import AnswerJournals

_TOO_OLD: Final = "last_event_id_expired"
_TOO_OLD_REASON: Final = "The events behind 'last_event_id' are not kept any more. Connect with 'session_id' alone."


def make_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A client who was let in, and what he comes back to."""

    entry: Entry
    session_id: str
    # In which the connection was made.
    span: SpanContext
    found: Found | None

    @property
    def tenant(self) -> str:
        return self.entry.terms.caller.tenant


@dataclass(frozen=True, slots=True)
class _Core:
    """What the parts of one session share."""

    arrival: Arrival
    session: Session
    commands: Commands
    connection: Connection
    outbox: Outbox
    account: Account
    prompting: Prompting
    playback: Playback


@dataclass(frozen=True, slots=True)
class SessionSetup:
    turns: TurnOpener
    media: MediaSource
    metrics: Metrics
    # None where sessions are not kept.
    keeper: SessionKeeper | None
    journals: AnswerJournals | None

    async def resumed(self, entry: Entry) -> tuple[Entry, Found | None]:
        """What the client goes on with. Raises what it is answered instead of an upgrade."""
        if entry.session_id is None:
            return entry, None
        if self.keeper is None:
            raise unknown_session(entry.session_id)
        found = await self.keeper.take_over(entry.terms.caller.tenant, entry.session_id)
        values = found.session.values
        return replace(entry, values=values, config=entry.terms.config_of(values)), found

    async def serve(self, socket: WebSocket, arrival: Arrival) -> None:
        """Until the connection is over. The socket has been accepted."""
        found, last_event = arrival.found, arrival.entry.last_event
        missed: Missed | None = None
        if self.keeper is not None and found is not None and last_event is not None:
            missed = await missed_since(self.keeper, arrival.tenant, arrival.session_id, found, last_event)
            if missed is None:
                return await _refuse(socket, arrival.session_id)
        core = self._core(socket, arrival)
        core.connection.keeping = self._keeping(core)
        beginning = Beginning(tells_items=found is not None)
        if missed is not None and found is not None and last_event is not None:
            answers = answers_again(core.session, missed, last_event, core.playback)
            beginning = Beginning(False, missed.frames, answers, _untranscribed(core.session, found.session))
        parts = Parts(self._answering(core), self._transcribing(core), self._ahead(core))
        return await core.connection.run(parts, self.turns.gate, beginning)

    def _core(self, socket: WebSocket, arrival: Arrival) -> _Core:
        entry, session_id = arrival.entry, arrival.session_id
        terms, settings = entry.terms, entry.terms.settings
        session = _session(arrival)
        expires_at = int(time.time() + settings.session_seconds)
        values = entry.values | {"id": session_id, "object": "realtime.session", "expires_at": expires_at}
        reader = ItemReader(self.media, make_id, lambda: MediaBudget.of(terms.gateway))
        commands = Commands(session, values, terms, reader)
        numbering = Numbering(session_id, arrival.found.last_event if arrival.found is not None else 0)
        conversation_id = session_id.replace("sess_", "conv_", 1)
        teller = Teller(lambda: commands.values, conversation_id, settings.sent_frame_bytes, numbering)
        outbox = Outbox(settings.unsent_bytes, settings.unread_seconds)
        connection = Connection(socket, commands, teller, outbox, settings)
        account = Account(terms.caller, self.turns.admission, connection.dismiss)
        prompting = self._prompting(terms, session_id)
        return _Core(arrival, session, commands, connection, outbox, account, prompting, Playback())

    def _prompting(self, terms: Terms, session_id: str) -> Prompting:
        prompts = self.turns.conductor.prompts
        retention = Retention(terms.settings, _bounds(terms), lambda text: len(prompts.text_ids(text)))
        return Prompting(terms.model, terms.settings, terms.gateway, session_id.encode(), retention)

    def _answering(self, core: _Core) -> Answering:
        terms = core.arrival.entry.terms
        return Answering(
            session=core.session,
            session_id=core.arrival.session_id,
            session_span=core.arrival.span,
            account=core.account,
            turns=self.turns,
            prompting=core.prompting,
            metrics=self.metrics,
            journals=LiveJournals(self.journals, terms.gateway) if self.journals is not None else None,
            playback=core.playback,
            ahead_seconds=terms.settings.ahead_seconds,
            perform=core.connection.perform,
            room=core.outbox.room,
        )

    def _transcribing(self, core: _Core) -> Transcribing:
        return Transcribing(
            session=core.session,
            session_id=core.arrival.session_id,
            session_span=core.arrival.span,
            account=core.account,
            turns=self.turns,
            prompting=core.prompting,
            metrics=self.metrics,
            most_waiting=core.arrival.entry.terms.settings.transcriptions,
            perform=core.connection.perform,
        )

    def _ahead(self, core: _Core) -> Ahead:
        settings, spawn = core.arrival.entry.terms.settings, core.connection.spawn
        preparing = Preparing(core.account, self.turns, core.prompting, self.metrics, spawn)
        speculation = Speculation(
            session_id=core.arrival.session_id,
            session_span=core.arrival.span,
            account=core.account,
            turns=self.turns,
            prompting=core.prompting,
            metrics=self.metrics,
            spawn=spawn,
            most_load=settings.speculative_load,
            seconds=settings.held_turn_seconds,
        )
        return Ahead(preparing, speculation)

    def _keeping(self, core: _Core) -> Keeping | None:
        if self.keeper is None:
            return None
        arrival, session, commands = core.arrival, core.session, core.commands
        found = arrival.found
        connection_id = found.session.connection_id if found is not None else new_connection_id()

        def standing() -> KeptSession:
            items = tuple(session.standing(time.monotonic()))
            has_spoken, owes = session.has_spoken, session.owes_answer
            return KeptSession(commands.values, items, has_spoken, connection_id, owes_answer=owes)

        goes_on = arrival.entry.last_event is not None
        dismiss = core.connection.dismiss
        return Keeping(self.keeper, arrival.tenant, arrival.session_id, standing, dismiss, found, goes_on=goes_on)


def _session(arrival: Arrival) -> Session:
    entry, found = arrival.entry, arrival.found
    session = Session(entry.config, entry.terms.settings.session_limits, make_id)
    if found is not None:
        session.has_spoken = found.session.has_spoken
        session.owes_answer = found.session.owes_answer and entry.last_event is not None
        for item in found.session.items:
            session.items.append(item)
    return session


def _untranscribed(session: Session, kept: KeptSession) -> list[Transcribe]:
    """Sounds that were being written down."""
    wanted = []
    for item_id, index in kept.transcribing:
        item = session.items.find(item_id)
        part = item.parts[index] if isinstance(item, UserItem) and index < len(item.parts) else None
        if isinstance(part, InputSound):
            wanted.append(Transcribe(item_id, index, part))
    return wanted


def _bounds(terms: Terms) -> PromptBounds:
    model, of_tenant = terms.model, terms.caller.limits.context_tokens
    return PromptBounds(
        context_tokens=model.context_tokens if of_tenant is None else min(model.context_tokens, of_tenant),
        answer_tokens=terms.gateway.default_answer_tokens,
        talker_rows=model.talker_context_rows,
        speech_rows=terms.gateway.max_speech_frames,
    )


async def _refuse(socket: WebSocket, session_id: str) -> None:
    """One who was away for too long; the session itself is there."""
    error = ErrorBody(message=_TOO_OLD_REASON, type="invalid_request_error", param="last_event_id", code=_TOO_OLD)
    await dismiss(socket, session_id, error, 1008)


async def dismiss(socket: WebSocket, session_id: str, error: ErrorBody, code: int) -> None:
    """One who was let in, but whose session cannot begin."""
    teller = Teller(dict, session_id, 0, Numbering(session_id))
    await socket.send_text(teller.last_word(error).text)
    await socket.close(code, error.message[:120])
