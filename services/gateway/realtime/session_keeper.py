"""Where live sessions are kept, and how a connection comes to have one: whoever had it before can keep it no more."""

import re
import secrets
from dataclasses import dataclass
from typing import Final

from antiphon.errors import Conflict, NotFound
from antiphon.sessions.conversation import Conversation
from antiphon.sessions.conversation_store import ConversationStore, StoredConversation
from antiphon.sessions.event_log import EventLog, LoggedEvent
from antiphon.sessions.media_store import MediaStore
from antiphon.sessions.opening import Sessions
from antiphon.sessions.settings import SessionSettings
from services.gateway.realtime.dialect.frames import Frame
from services.gateway.realtime.kept_session import KeptSession, hashes_of, owned_by, session_of

_SESSION_ID: Final = re.compile(r"sess_[0-9a-f]{24}")
# Who takes a session over may meet the saves of who had it.
_ATTEMPTS: Final = 4
_EVENTS_A_PAGE: Final = 2048


@dataclass(frozen=True, slots=True)
class Found:
    """A session that belongs to this connection from now on."""

    session: KeptSession
    version: int
    created_at: float
    # The number of its newest event.
    last_event: int


@dataclass(frozen=True, slots=True)
class SessionKeeper:
    conversations: ConversationStore
    events: EventLog
    media: MediaStore
    # An event waits so long to be kept before it is sent.
    patience_seconds: float
    # Media are used again so often that they do not expire.
    touch_seconds: float
    # Of events that wait while the storage is away.
    waiting_bytes: int

    @classmethod
    def of(cls, sessions: Sessions, settings: SessionSettings, patience_seconds: float) -> "SessionKeeper":
        stores = sessions.conversations, sessions.events, sessions.media
        return cls(*stores, patience_seconds, settings.media_seconds / 4, settings.event_bytes)

    async def take_over(self, tenant: str, session_id: str) -> Found:
        """Whoever had it cannot keep it any more. Raises NotFound, Conflict, Unavailable."""
        connection_id = new_connection_id()
        for _ in range(_ATTEMPTS):
            stored = await self.load(tenant, session_id)
            conversation = owned_by(connection_id, stored.conversation)
            session = session_of(conversation, await self._media(tenant, conversation))
            try:
                version = await self.conversations.save(tenant, conversation, expected_version=stored.version)
            except Conflict:
                continue
            newest = await self.events.after(tenant, session_id, session.event_count, 1)
            last = max(session.event_count, newest.last_id)
            return Found(session, version, conversation.created_at_seconds, last)
        raise Conflict("The session is in use by another connection. Connect again in a moment.", param="session_id")

    async def load(self, tenant: str, session_id: str) -> StoredConversation:
        if _SESSION_ID.fullmatch(session_id):
            try:
                return await self.conversations.load(tenant, session_id)
            except NotFound:
                pass
        raise unknown_session(session_id)

    async def frames(self, tenant: str, session_id: str, begin: int, found: Found, after: int) -> list[Frame] | None:
        """From the one numbered `begin` on. None where some are forgotten, or their sound, which is needed of those
        behind `after`."""
        events: list[LoggedEvent] = []
        while begin + len(events) <= found.last_event:
            page = await self.events.after(tenant, session_id, begin + len(events) - 1, _EVENTS_A_PAGE)
            if not (page.is_complete and page.events):
                return None
            events += page.events
        if any(event.sound is None for event in events if event.id > after):
            return None
        return [Frame.of(event) for event in events]

    async def _media(self, tenant: str, conversation: Conversation) -> dict[str, bytes]:
        """Those that are still there."""
        found: dict[str, bytes] = {}
        for content_hash in hashes_of(conversation):
            try:
                found[content_hash] = await self.media.get(tenant, content_hash)
            except NotFound:
                continue
        return found


def unknown_session(session_id: str) -> NotFound:
    return NotFound(
        f"The session '{session_id[:64]}' is unknown, has expired, or became too large to be kept. "
        "Connect without 'session_id' to open another.",
        param="session_id",
        code="session_not_found",
    )


def new_connection_id() -> str:
    return secrets.token_hex(8)
