"""Keeps a live session while it lasts, so that a client that lost its gateway goes on with it at any other.

Every event is kept before it is sent, with the session that it tells of where that has changed. It waits for a moment
at most: where it cannot be kept the session is served all the same.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from antiphon.errors import AntiphonError, Conflict, NotFound, TooLarge, Unavailable
from antiphon.sessions.conversation import Conversation
from services.gateway.realtime.core.items import Item
from services.gateway.realtime.core.outcomes import (
    Effect,
    Event,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemTruncated,
    ResponseCreated,
    ResponseDone,
    SessionUpdated,
    SoundPiece,
    TextPiece,
    Transcribe,
    Transcribed,
    TranscriptionFailed,
)
from services.gateway.realtime.dialect.frames import Frame
from services.gateway.realtime.kept_session import KeptSession, Place, connection_of, conversation_of, media_of
from services.gateway.realtime.session_keeper import Found, SessionKeeper

_LOG = logging.getLogger(__name__)

TAKEN_OVER: Final = "session_taken_over"
# An answer that grows is kept as a part of its conversation so often; tried again so soon while the storage is away.
_PROGRESS_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.5
# And twice as long each time while the tenant has no room left, up to this.
_LONGEST_PAUSE_SECONDS: Final = 8.0
_LAST_SAVE_SECONDS: Final = 2.0
_CHANGES: Final = (
    SessionUpdated,
    ItemAdded,
    ItemDone,
    ItemDeleted,
    ItemTruncated,
    Transcribed,
    TranscriptionFailed,
    ResponseCreated,
    ResponseDone,
)
_PROGRESS: Final = (SoundPiece, TextPiece)


class Keeping:
    """Of one session, while its connection lasts. session: as it stands now; taken_over: another connection has it;
    goes_on: with what was being answered."""

    def __init__(
        self,
        keeper: SessionKeeper,
        tenant: str,
        session_id: str,
        session: Callable[[], KeptSession],
        taken_over: Callable[[AntiphonError], None],
        found: Found | None,
        *,
        goes_on: bool,
    ) -> None:
        self._keeper, self._tenant, self._session_id = keeper, tenant, session_id
        self._session, self._taken_over = session, taken_over
        # 0: nothing is kept yet.
        self._version = found.version if found is not None else 0
        self._created_at = found.created_at if found is not None else time.time()
        self._waiting: deque[Frame] = deque()
        self._waiting_bytes = 0
        self._told_to = self._kept_to = found.last_event if found is not None else 0
        # By response that is being given: the number of its first event.
        self._answering = dict(found.session.answering) if found is not None and goes_on else {}
        self._asked_apart = dict.fromkeys(found.session.asked_apart if found is not None and goes_on else ())
        self._transcribing = dict.fromkeys(found.session.transcribing if found is not None and goes_on else ())
        # What was being answered and does not go on is to be known as over.
        self._has_changed = found is not None and not goes_on
        self._is_behind = self._is_lost = self._is_over = False
        self._wake, self._moved = asyncio.Event(), asyncio.Event()
        self._saved_at = self._touched_at = time.monotonic()
        # Of media that are kept already.
        self._hashes: dict[Place, tuple[bytes, str]] = {}
        self._has_warned = self._is_given_up = False
        self._pause_seconds = _PAUSE_SECONDS

    @property
    def can_go_on_elsewhere(self) -> bool:
        """Another connection would find it."""
        return self._version > 0 and not (self._is_given_up or self._is_lost)

    def told(self, event: Event | None, frame: Frame) -> None:
        """frame: the next; event: what it tells, where that is of the session."""
        if self._is_over:
            return
        self._waiting.append(frame)
        self._waiting_bytes += frame.size_bytes
        self._forget_too_many()
        self._told_to = frame.number
        match event:
            case ResponseCreated(response):
                self._answering[response.id] = frame.number
                if response.is_asked_apart:
                    self._asked_apart[response.id] = None
            case ResponseDone(response):
                self._answering.pop(response.id, None)
                self._asked_apart.pop(response.id, None)
            case Transcribed(item_id, index) | TranscriptionFailed(item_id, index):
                self._transcribing.pop((item_id, index), None)
        is_due = time.monotonic() - self._saved_at >= _PROGRESS_SECONDS
        self._has_changed |= isinstance(event, (*_CHANGES, *_PROGRESS) if is_due else _CHANGES)
        if self._version or self._has_changed:
            self._wake.set()

    def note(self, effect: Effect) -> None:
        if isinstance(effect, Transcribe):
            self._transcribing[effect.item_id, effect.content_index] = None
            self._has_changed = True
            self._wake.set()

    async def kept(self, number: int) -> bool:
        """When the event is kept, or has waited for long enough. False when it may not be told: another connection has
        the session."""
        if number <= self._kept_to or self._nobody_waits:
            return not self._is_lost
        try:
            async with asyncio.timeout(self._keeper.patience_seconds):
                while number > self._kept_to and not self._nobody_waits:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            self._is_behind = True
        return not self._is_lost

    async def run(self) -> None:
        """Until it is cancelled, or another connection has the session."""
        while not self._is_over:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._keeper.touch_seconds):
                    await self._wake.wait()
            self._has_changed |= time.monotonic() - self._saved_at >= self._keeper.touch_seconds and self._version > 0
            if (error := await self._keep()) is not None:
                await asyncio.sleep(self._pause(error))

    async def finish(self) -> None:
        """Keeps how the session ends, if it takes no longer than a moment. `run` has ended."""
        if not self._is_over and (self._version or self._has_changed):
            self._has_changed = True
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_SAVE_SECONDS):
                    await self._keep()
        self._is_over = True
        self._moved.set()

    @property
    def _nobody_waits(self) -> bool:
        return self._is_behind or self._is_over or not (self._version or self._has_changed)

    async def _keep(self) -> AntiphonError | None:
        """What waits, and the session as it is told by that. Gives what it failed of for now."""
        self._wake.clear()
        frames, session = tuple(self._waiting), self._standing() if self._has_changed else None
        self._has_changed = False
        try:
            await self._write(frames, session)
        except Conflict:
            self._is_over = self._is_lost = True
            message = "The session goes on over another connection, which took it over."
            self._taken_over(Conflict(message, code=TAKEN_OVER))
        except TooLarge as error:
            self._warn(error)
            await self._give_up()
            return None
        except AntiphonError as error:
            self._is_behind, self._has_changed = True, self._has_changed or session is not None
            self._wake.set()
            self._moved.set()
            return error
        self._pause_seconds = _PAUSE_SECONDS
        self._kept_to = frames[-1].number if frames else self._kept_to
        while self._waiting and self._waiting[0].number <= self._kept_to:
            self._forget_oldest()
        self._is_behind = self._is_behind and self._kept_to < self._told_to
        self._moved.set()
        return None

    def _pause(self, error: AntiphonError) -> float:
        """Seconds until it is tried again."""
        if isinstance(error, Unavailable):
            return _PAUSE_SECONDS
        self._warn(error)
        seconds, self._pause_seconds = self._pause_seconds, min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        return seconds

    async def _give_up(self) -> None:
        """It is not kept from now on, and nobody comes back to an older one."""
        self._is_over = self._is_given_up = True
        self._waiting.clear()
        self._waiting_bytes = 0
        self._moved.set()
        while self._version:
            try:
                if await self._own_version(self._session().connection_id):
                    await self._keeper.conversations.delete(self._tenant, self._session_id)
                self._version = 0
            except Conflict:
                self._version = 0
            except AntiphonError:
                await asyncio.sleep(_PAUSE_SECONDS)

    def _standing(self) -> KeptSession:
        self._saved_at = time.monotonic()
        return replace(
            self._session(),
            answering=dict(self._answering),
            asked_apart=tuple(self._asked_apart),
            transcribing=tuple(self._transcribing),
            event_count=self._told_to,
        )

    def _forget_too_many(self) -> None:
        """Of those that could not be kept: while the storage is away, or nothing has changed that is worth it."""
        while self._waiting_bytes > self._keeper.waiting_bytes:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._waiting_bytes -= self._waiting.popleft().size_bytes

    async def _write(self, frames: Sequence[Frame], session: KeptSession | None) -> None:
        """Raises Conflict when another connection has the session."""
        told = None
        if session is not None:
            hashes = await self._put_media(session.items)
            told = conversation_of(self._session_id, session, hashes, self._created_at, time.time())
        try:
            await self._write_as_known(frames, told)
        except (Conflict, NotFound):
            # Expired, or written by this connection itself, which was not told so.
            session = session or self._standing()
            self._version = await self._own_version(session.connection_id)
            hashes = await self._put_media(session.items)
            told = conversation_of(self._session_id, session, hashes, self._created_at, time.time())
            await self._write_as_known(frames, told)

    async def _write_as_known(self, frames: Sequence[Frame], told: Conversation | None) -> None:
        logged = [frame.logged() for frame in frames]
        if told is not None or logged:
            keep = self._keeper.events.keep
            self._version = await keep(self._tenant, self._session_id, self._version, logged, told)

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
        """Those that there is room for; a medium is put once, and used again before it would be forgotten."""
        before, self._hashes = await self._still_kept(), {}
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

    async def _still_kept(self) -> dict[Place, tuple[bytes, str]]:
        if time.monotonic() - self._touched_at < self._keeper.touch_seconds:
            return self._hashes
        self._touched_at = time.monotonic()
        hashes = {content_hash for _, content_hash in self._hashes.values()}
        gone = await self._keeper.media.touch(self._tenant, hashes)
        return {place: known for place, known in self._hashes.items() if known[1] not in gone}

    def _warn(self, error: AntiphonError) -> None:
        """Once of a session."""
        if not self._has_warned:
            _LOG.warning("A live session is not kept whole: %s", error.message)
        self._has_warned = True
