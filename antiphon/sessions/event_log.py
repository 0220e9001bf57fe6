"""Events that went out on a stream, so that a client who missed some gets them again."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import time
from typing import Protocol

from antiphon.errors import TooLarge
from antiphon.sessions.expiring import ExpiringMap
from antiphon.sessions.settings import SessionSettings


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    # 1 is the stream's first; each next is greater by one.
    id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class EventPage:
    events: tuple[LoggedEvent, ...]
    # False when some that followed are forgotten already, or never were: the client cannot be brought up to date.
    is_complete: bool


class EventLog(Protocol):
    """Of each tenant its own. A stream has one writer at a time, and keeps what is within `event_count`,
    `event_bytes` and `event_seconds`. Both raise Unavailable when the storage is away."""

    async def append(self, tenant: str, stream_id: str, event: bytes) -> int:
        """Returns its id. Raises TooLarge for one that can never be kept."""
        ...

    async def after(self, tenant: str, stream_id: str, event_id: int, limit: int) -> EventPage:
        """The next `limit` events after the one with `event_id`; 0 is before the first."""
        ...


@dataclass(slots=True)
class _Stream:
    last_id: int = 0
    size_bytes: int = 0
    # (written at, event), oldest first
    events: deque[tuple[float, LoggedEvent]] = field(default_factory=deque)


class MemoryEventLog:
    def __init__(self, settings: SessionSettings, now_seconds: Callable[[], float] = time) -> None:
        self._settings, self._now_seconds = settings, now_seconds
        self._streams = ExpiringMap[_Stream](settings.event_seconds, now_seconds=now_seconds)

    async def append(self, tenant: str, stream_id: str, event: bytes) -> int:
        require_event_fits(event, self._settings)
        stream = self._streams.get(tenant, stream_id) or _Stream()
        stream.last_id += 1
        stream.size_bytes += len(event)
        stream.events.append((self._now_seconds(), LoggedEvent(stream.last_id, event)))
        self._streams.put(tenant, stream_id, stream)
        self._trim(stream)
        return stream.last_id

    async def after(self, tenant: str, stream_id: str, event_id: int, limit: int) -> EventPage:
        stream = self._streams.get(tenant, stream_id, refresh=False) or _Stream()
        self._trim(stream)
        following = tuple(event for _, event in stream.events if event.id > event_id)
        return page_after(event_id, stream.last_id, following[:limit])

    def _trim(self, stream: _Stream) -> None:
        oldest_seconds = self._now_seconds() - self._settings.event_seconds
        while stream.events and (
            len(stream.events) > self._settings.event_count
            or stream.size_bytes > self._settings.event_bytes
            or stream.events[0][0] <= oldest_seconds
        ):
            _, forgotten = stream.events.popleft()
            stream.size_bytes -= len(forgotten.data)


def page_after(event_id: int, last_id: int, following: tuple[LoggedEvent, ...]) -> EventPage:
    """`following`: those kept that come after it, from the oldest on."""
    next_id = following[0].id if following else last_id + 1
    return EventPage(following, is_complete=next_id == event_id + 1)


def require_event_fits(event: bytes, settings: SessionSettings) -> None:
    if len(event) > settings.event_bytes:
        raise TooLarge(f"An event has at most {settings.event_bytes} bytes; came {len(event)}.")
