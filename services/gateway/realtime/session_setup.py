"""Puts together what one live session consists of."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from opentelemetry.trace import SpanContext
from starlette.websockets import WebSocket

from antiphon.errors import AntiphonError
from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.playback import Playback
from services.gateway.media_source import MediaBudget, MediaSource
from services.gateway.realtime.account import Account
from services.gateway.realtime.admitted_turn import TurnOpener
from services.gateway.realtime.ahead import Ahead
from services.gateway.realtime.answering import Answering
from services.gateway.realtime.commands import Commands, Terms
from services.gateway.realtime.connection import Connection
from services.gateway.realtime.core.session import Session
from services.gateway.realtime.dialect.items import ItemReader
from services.gateway.realtime.dialect.server_events import Teller
from services.gateway.realtime.entry import Entry
from services.gateway.realtime.keeping import Found, Keeping, SessionKeeper, new_connection_id, unknown_session
from services.gateway.realtime.kept_session import KeptSession
from services.gateway.realtime.outbox import Outbox
from services.gateway.realtime.preparing import Preparing
from services.gateway.realtime.prompting import Prompting
from services.gateway.realtime.retention import PromptBounds, Retention
from services.gateway.realtime.speculation import Speculation
from services.gateway.realtime.transcribing import Transcribing


def make_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


@dataclass(frozen=True, slots=True)
class SessionSetup:
    turns: TurnOpener
    media: MediaSource
    metrics: Metrics
    # None where sessions are not kept.
    keeper: SessionKeeper | None

    async def resumed(self, entry: Entry) -> tuple[Entry, Found | None]:
        """What the client goes on with. Raises what it is answered instead of an upgrade."""
        if entry.session_id is None:
            return entry, None
        if self.keeper is None:
            raise unknown_session(entry.session_id)
        found = await self.keeper.take_over(entry.terms.caller.tenant, entry.session_id)
        values = found.session.values
        return replace(entry, values=values, config=entry.terms.config_of(values)), found

    async def serve(
        self, socket: WebSocket, entry: Entry, session_id: str, span: SpanContext, found: Found | None
    ) -> None:
        """Until the connection is over. The socket has been accepted."""
        terms, prompts = entry.terms, self.turns.conductor.prompts
        settings = terms.settings
        session = Session(entry.config, settings.session_limits, make_id)
        if found is not None:
            session.has_spoken = found.session.has_spoken
            for item in found.session.items:
                session.items.append(item)
        expires_at = int(time.time() + settings.session_seconds)
        values = entry.values | {"id": session_id, "object": "realtime.session", "expires_at": expires_at}
        reader = ItemReader(self.media, make_id, lambda: MediaBudget.of(terms.gateway))
        commands = Commands(session, values, terms, reader)
        teller = Teller(lambda: commands.values, session_id.replace("sess_", "conv_", 1), settings.sent_frame_bytes)
        outbox = Outbox(settings.unsent_bytes, settings.unread_seconds)
        connection = Connection(socket, commands, teller, outbox, settings)
        connection.keeping = self._keeping(entry, session_id, session, commands, connection.dismiss, found)
        account = Account(terms.caller, self.turns.admission, connection.dismiss)
        retention = Retention(settings, self._bounds(terms), lambda text: len(prompts.text_ids(text)))
        prompting = Prompting(terms.model, settings, terms.gateway, session_id.encode(), retention)
        answering = Answering(
            session=session,
            session_id=session_id,
            session_span=span,
            account=account,
            turns=self.turns,
            prompting=prompting,
            metrics=self.metrics,
            playback=Playback(),
            ahead_seconds=settings.ahead_seconds,
            perform=connection.perform,
            room=outbox.room,
        )
        transcribing = Transcribing(
            session=session,
            session_id=session_id,
            session_span=span,
            account=account,
            turns=self.turns,
            prompting=prompting,
            metrics=self.metrics,
            most_waiting=settings.transcriptions,
            perform=connection.perform,
        )
        preparing = Preparing(account, self.turns, prompting, self.metrics, connection.spawn)
        speculation = Speculation(
            session_id=session_id,
            session_span=span,
            account=account,
            turns=self.turns,
            prompting=prompting,
            metrics=self.metrics,
            spawn=connection.spawn,
            most_load=settings.speculative_load,
            seconds=settings.held_turn_seconds,
        )
        await connection.run(
            answering, transcribing, Ahead(preparing, speculation), self.turns.gate, tells_items=found is not None
        )

    def _keeping(
        self,
        entry: Entry,
        session_id: str,
        session: Session,
        commands: Commands,
        dismiss: Callable[[AntiphonError], None],
        found: Found | None,
    ) -> Keeping | None:
        if self.keeper is None:
            return None
        connection_id = found.session.connection_id if found is not None else new_connection_id()

        def standing() -> KeptSession:
            items = tuple(session.standing(time.monotonic()))
            return KeptSession(commands.values, items, session.has_spoken, connection_id)

        return Keeping(self.keeper, entry.terms.caller.tenant, session_id, standing, dismiss, found)

    def _bounds(self, terms: Terms) -> PromptBounds:
        model, of_tenant = terms.model, terms.caller.limits.context_tokens
        return PromptBounds(
            context_tokens=model.context_tokens if of_tenant is None else min(model.context_tokens, of_tenant),
            answer_tokens=terms.gateway.default_answer_tokens,
            talker_rows=model.talker_context_rows,
            speech_rows=terms.gateway.max_speech_frames,
        )
