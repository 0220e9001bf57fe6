"""What was said in spoken answers, by audio id, so that a later request may refer to one instead of repeating it."""

from collections.abc import Callable
from time import time
from typing import Protocol

from antiphon.sessions.expiring import ExpiringMap
from antiphon.sessions.settings import SessionSettings


class Transcripts(Protocol):
    """Of each tenant its own: another's audio id is as unknown as one that never was. Both raise Unavailable when the
    storage is away."""

    async def keep(self, tenant: str, audio_id: str, transcript: str) -> int:
        """Returns when it will be forgotten, in seconds since the epoch, if it is not among the tenant's oldest
        before."""
        ...

    async def find(self, tenant: str, audio_id: str) -> str | None: ...


class MemoryTranscripts:
    def __init__(self, settings: SessionSettings, now_seconds: Callable[[], float] = time) -> None:
        self._count = settings.transcript_count
        self._kept = ExpiringMap[str](settings.transcript_seconds, now_seconds=now_seconds)

    async def keep(self, tenant: str, audio_id: str, transcript: str) -> int:
        expires_at = self._kept.put(tenant, audio_id, transcript)
        while self._kept.count(tenant) > self._count:
            self._kept.drop_oldest(tenant)
        return int(expires_at)

    async def find(self, tenant: str, audio_id: str) -> str | None:
        return self._kept.get(tenant, audio_id, refresh=False)
