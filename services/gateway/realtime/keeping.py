"""Keeps live sessions while they last, so that a client that lost its gateway finds its conversation at any other.

Saving goes on beside the session and never holds it up; where it cannot be kept the session is served all the same.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from antiphon.errors import AntiphonError, Conflict, NotFound, TooLarge, Unavailable
from antiphon.sessions.conversation import Conversation
from antiphon.sessions.conversation_store import ConversationStore, StoredConversation
from antiphon.sessions.media_store import MediaStore
from services.gateway.realtime.core.items import Item
from services.gateway.realtime.core.outcomes import (
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemTruncated,
    Outcomes,
    SessionUpdated,
    SoundPiece,
    TextPiece,
    Transcribed,
)
from services.gateway.realtime.kept_session import (
    KeptSession,
    Place,
    connection_of,
    conversation_of,
    hashes_of,
    media_of,
    owned_by,
    session_of,
)

_LOG = logging.getLogger(__name__)
_SESSION_ID: Final = re.compile(r"sess_[0-9a-f]{24}")
# Who takes a session over may meet the saves of who had it.
_ATTEMPTS: Final = 4
# An answer that grows is kept so often; and tried again so soon while the storage is away.
_PROGRESS_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.5
_LAST_SAVE_SECONDS: Final = 2.0
_CHANGES: Final = (SessionUpdated, ItemAdded, ItemDone, ItemDeleted, ItemTruncated, Transcribed)
_PROGRESS: Final = (SoundPiece, TextPiece)


@dataclass(frozen=True, slots=True)
class Found:
    """A session that belongs to this connection from now on."""

    session: KeptSession
    version: int
    created_at: float


@dataclass(frozen=True, slots=True)
class SessionKeeper:
    conversations: ConversationStore
    media: MediaStore
    # Changes that follow each other so soon are kept together.
    seconds: float

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
            return Found(session, version, conversation.created_at_seconds)
        raise Conflict("The session is in use by another connection. Connect again in a moment.", param="session_id")

    async def load(self, tenant: str, session_id: str) -> StoredConversation:
        if _SESSION_ID.fullmatch(session_id):
            try:
                return await self.conversations.load(tenant, session_id)
            except NotFound:
                pass
        raise unknown_session(session_id)

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
        f"The session '{session_id[:64]}' is unknown or has expired. Connect without 'session_id' to open another.",
        param="session_id",
        code="session_not_found",
    )


def new_connection_id() -> str:
    return secrets.token_hex(8)


class Keeping:
    """Of one session, while its connection lasts. session: as it stands now; taken_over: another connection has it."""

    def __init__(
        self,
        keeper: SessionKeeper,
        tenant: str,
        session_id: str,
        session: Callable[[], KeptSession],
        taken_over: Callable[[AntiphonError], None],
        found: Found | None,
    ) -> None:
        self._keeper, self._tenant, self._session_id = keeper, tenant, session_id
        self._session, self._taken_over = session, taken_over
        # 0: nothing is kept yet.
        self._version = found.version if found is not None else 0
        self._created_at = found.created_at if found is not None else time.time()
        self._has_changed = asyncio.Event()
        self._saved_at = 0.0
        self._is_over = False
        # Of media that are kept already.
        self._hashes: dict[Place, tuple[bytes, str]] = {}
        self._has_warned = False

    def note(self, outcomes: Outcomes) -> None:
        """What has come of something, and may be worth keeping."""
        is_due = time.monotonic() - self._saved_at >= _PROGRESS_SECONDS
        kinds = (*_CHANGES, *_PROGRESS) if is_due else _CHANGES
        if any(isinstance(outcome, kinds) for outcome in outcomes):
            self._has_changed.set()

    async def run(self) -> None:
        """Until it is cancelled, or another connection has the session."""
        while not self._is_over:
            await self._has_changed.wait()
            await asyncio.sleep(self._keeper.seconds)
            await self._save()

    async def finish(self) -> None:
        """Keeps how the session ends, if it takes no longer than a moment. `run` has ended."""
        if self._is_over or not (self._version or self._has_changed.is_set()):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SAVE_SECONDS):
                await self._save()

    async def _save(self) -> None:
        self._has_changed.clear()
        self._saved_at = time.monotonic()
        try:
            await self._write()
        except Conflict:
            self._is_over = True
            message = "The session goes on over another connection, which took it over."
            self._taken_over(Conflict(message, code="session_taken_over"))
        except Unavailable:
            self._has_changed.set()
            await asyncio.sleep(_PAUSE_SECONDS)
        except AntiphonError as error:
            self._warn(error)

    async def _write(self) -> None:
        """Raises Conflict when another connection has the session."""
        session = self._session()
        hashes = await self._put_media(session.items)
        kept = conversation_of(self._session_id, session, hashes, self._created_at, time.time())
        try:
            await self._write_as_known(kept)
        except (Conflict, NotFound):
            # Expired, or written by this connection itself, which was not told so.
            self._version = await self._own_version(session.connection_id)
            await self._write_as_known(kept)

    async def _write_as_known(self, kept: Conversation) -> None:
        conversations = self._keeper.conversations
        if self._version:
            self._version = await conversations.save(self._tenant, kept, expected_version=self._version)
        else:
            self._version = await conversations.create(self._tenant, kept)

    async def _own_version(self, connection_id: str) -> int:
        """0 where nothing is kept. Raises Conflict where somebody else keeps it."""
        try:
            stored = await self._keeper.load(self._tenant, self._session_id)
        except NotFound:
            return 0
        if connection_of(stored.conversation) != connection_id:
            raise Conflict("The session is kept by another connection.")
        return stored.version

    async def _put_media(self, items: tuple[Item, ...]) -> dict[Place, str]:
        """Those that there is room for; a medium is put once."""
        before, self._hashes = self._hashes, {}
        for place, data in media_of(items):
            known, content_hash = before.get(place, (b"", ""))
            if known is not data:
                try:
                    content_hash = await self._keeper.media.put(self._tenant, data)
                except TooLarge as error:
                    self._warn(error)
                    continue
            self._hashes[place] = data, content_hash
        return {place: content_hash for place, (_, content_hash) in self._hashes.items()}

    def _warn(self, error: AntiphonError) -> None:
        """Once of a session."""
        if not self._has_warned:
            _LOG.warning("A live session is not kept whole: %s", error.message)
        self._has_warned = True
