"""Events that went out of a conversation, so that a client who missed some gets them again.

An event and what it tells of are kept in one step, under the conversation's version: whoever takes the conversation
over finds all that was told of it, and from then on nobody else tells anything.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from time import time
from typing import Protocol

from antiphon.errors import TooLarge
from antiphon.sessions.conversation import Conversation
from antiphon.sessions.conversation_store import MemoryConversationStore, saved_by_another, unknown_conversation
from antiphon.sessions.expiring import ExpiringMap
from antiphon.sessions.settings import SessionSettings


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    # 1 is the conversation's first; each next is greater by one. Its writer numbers them.
    id: int
    data: bytes
    # What it carries of sound, which is forgotten sooner: None once it is.
    sound: bytes | None = b""


@dataclass(frozen=True, slots=True)
class EventPage:
    events: tuple[LoggedEvent, ...]
    # Of the newest event, 0 where there is none.
    last_id: int
    # False when some that followed are forgotten already, or never were: the client cannot be brought up to date.
    is_complete: bool


class EventLog(Protocol):
    """Of each tenant its own. Of a conversation it keeps what is within `event_count`, `event_bytes`,
    `event_sound_bytes` and `event_seconds`. Both raise Unavailable when the storage is away."""

    async def keep(
        self, tenant: str, conversation_id: str, version: int, events: Sequence[LoggedEvent], told: Conversation | None
    ) -> int:
        """Adds events in their order, and with them the conversation that they tell of; None leaves it as it is. Those
        that are there already are not added again. version: expected, 0 for a conversation that is not kept yet.
        Returns its version from now on. Raises Conflict if somebody else saved meanwhile, NotFound, TooLarge,
        AtCapacity."""
        ...

    async def after(self, tenant: str, conversation_id: str, event_id: int, limit: int) -> EventPage:
        """The next `limit` events after the one with `event_id`; 0 is before the first."""
        ...


@dataclass(slots=True)
class _Stream:
    last_id: int = 0
    size_bytes: int = 0
    sound_bytes: int = 0
    # (written at, event), oldest first
    events: deque[tuple[float, LoggedEvent]] = field(default_factory=deque)
    # Sounds by event, oldest first.
    sounds: dict[int, bytes] = field(default_factory=dict)


class MemoryEventLog:
    def __init__(
        self,
        conversations: MemoryConversationStore,
        settings: SessionSettings,
        now_seconds: Callable[[], float] = time,
    ) -> None:
        self._conversations, self._settings, self._now_seconds = conversations, settings, now_seconds
        self._streams = ExpiringMap[_Stream](settings.event_seconds, now_seconds=now_seconds)

    async def keep(
        self, tenant: str, conversation_id: str, version: int, events: Sequence[LoggedEvent], told: Conversation | None
    ) -> int:
        require_events_fit(events, self._settings)
        version = await self._save(tenant, conversation_id, version, told)
        stream = self._streams.get(tenant, conversation_id) or _Stream()
        for event in events:
            if event.id > stream.last_id:
                self._add(stream, event)
        if events:
            self._streams.put(tenant, conversation_id, stream)
        return version

    async def after(self, tenant: str, conversation_id: str, event_id: int, limit: int) -> EventPage:
        stream = self._streams.get(tenant, conversation_id, refresh=False) or _Stream()
        self._trim(stream)
        following = [event for _, event in stream.events if event.id > event_id][:limit]
        found = (
            LoggedEvent(event.id, event.data, stream.sounds.get(event.id) if event.sound else b"")
            for event in following
        )
        return page_after(event_id, stream.last_id, tuple(found))

    async def _save(self, tenant: str, conversation_id: str, version: int, told: Conversation | None) -> int:
        if told is not None and version:
            return await self._conversations.save(tenant, told, expected_version=version)
        if told is not None:
            return await self._conversations.create(tenant, told)
        kept = self._conversations.version(tenant, conversation_id)
        if not kept or not version:
            raise unknown_conversation()
        if kept != version:
            raise saved_by_another(version, kept)
        return version

    def _add(self, stream: _Stream, event: LoggedEvent) -> None:
        stream.last_id = event.id
        stream.size_bytes += len(event.data)
        stream.events.append((self._now_seconds(), event))
        if event.sound:
            stream.sounds[event.id] = event.sound
            stream.sound_bytes += len(event.sound)
        self._trim(stream)

    def _trim(self, stream: _Stream) -> None:
        settings = self._settings
        oldest_seconds = self._now_seconds() - settings.event_seconds
        while stream.events and (
            len(stream.events) > settings.event_count
            or stream.size_bytes > settings.event_bytes
            or stream.events[0][0] <= oldest_seconds
        ):
            _, forgotten = stream.events.popleft()
            stream.size_bytes -= len(forgotten.data)
        while stream.sound_bytes > settings.event_sound_bytes:
            stream.sound_bytes -= len(stream.sounds.pop(next(iter(stream.sounds))))


def page_after(event_id: int, last_id: int, following: tuple[LoggedEvent, ...]) -> EventPage:
    """`following`: those kept that come after it, from the oldest on."""
    ids = [event_id, *(event.id for event in following)] if following else [event_id, last_id + 1]
    return EventPage(following, last_id, is_complete=all(late == early + 1 for early, late in pairwise(ids)))


def require_events_fit(events: Sequence[LoggedEvent], settings: SessionSettings) -> None:
    for event in events:
        if len(event.data) > settings.event_bytes:
            raise TooLarge(f"An event has at most {settings.event_bytes} bytes; came {len(event.data)}.")
        if len(event.sound or b"") > settings.event_sound_bytes:
            raise TooLarge(
                f"The sound of an event has at most {settings.event_sound_bytes} bytes; came {len(event.sound or b'')}."
            )
