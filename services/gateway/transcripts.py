"""What was said in spoken answers, by audio id, so that a later request may refer to one instead of repeating it."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol


class Transcripts(Protocol):
    def keep(self, audio_id: str, transcript: str) -> int:
        """Returns when it will be forgotten, in seconds since the epoch."""
        ...

    def find(self, audio_id: str) -> str | None: ...


class MemoryTranscripts:
    """In this process, bounded in number and age; the oldest go first."""

    def __init__(self, count: int, seconds: float, now_seconds: Callable[[], float] = time.time) -> None:
        self._count, self._seconds, self._now_seconds = count, seconds, now_seconds
        # id -> (forgotten at, transcript), oldest first
        self._kept: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def keep(self, audio_id: str, transcript: str) -> int:
        expires_at = self._now_seconds() + self._seconds
        self._kept[audio_id] = (expires_at, transcript)
        while len(self._kept) > self._count:
            self._kept.popitem(last=False)
        return int(expires_at)

    def find(self, audio_id: str) -> str | None:
        expires_at, transcript = self._kept.get(audio_id, (0.0, ""))
        if self._now_seconds() >= expires_at:
            self._kept.pop(audio_id, None)
            return None
        return transcript
