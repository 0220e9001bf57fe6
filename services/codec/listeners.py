"""How those fare who hear the codec's speeches; on the event loop, like the speeches themselves."""

import time
from dataclasses import dataclass, field
from typing import Final

from antiphon.scaling.recent import RecentSum, RecentValues
from antiphon.scaling.signals import SpeechSignals
from antiphon.telemetry.playback import SAMPLE_RATE_HZ

# Whose sound ends in less than this while his next is being computed is about to hear silence.
_SHORT_LEAD_SECONDS: Final = 0.05


class Listener:
    """Moments are of time.monotonic()."""

    def __init__(self, listeners: "Listeners") -> None:
        self._listeners = listeners
        self._asked = 0.0
        # While the next of his sound is asked for: when he has played all before it.
        self._due: float | None = None
        self.has_begun = False

    def asks(self, due: float) -> None:
        self._asked, self._due = time.monotonic(), due

    def gets(self, sample_count: int) -> None:
        self._due = None
        self._listeners.served(sample_count, None if self.has_begun else self._asked)
        self.has_begun = True

    def is_short(self, now: float) -> bool:
        return self.has_begun and self._due is not None and self._due - now < _SHORT_LEAD_SECONDS


@dataclass(slots=True)
class Listeners:
    places: int
    _live: set[Listener] = field(default_factory=set)
    _sound: RecentSum = field(default_factory=RecentSum)
    _firsts: RecentValues = field(default_factory=RecentValues)

    def join(self) -> Listener:
        listener = Listener(self)
        self._live.add(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        self._live.discard(listener)

    def served(self, sample_count: int, first_asked: float | None) -> None:
        """first_asked: when the first sound of a speech was asked for, if this is it."""
        now = time.monotonic()
        self._sound.add(now, sample_count / SAMPLE_RATE_HZ)
        if first_asked is not None:
            self._firsts.add(now, now - first_asked)

    def signals(self) -> SpeechSignals:
        now = time.monotonic()
        return SpeechSignals(
            streams=len(self._live),
            places=self.places,
            sound_rate=self._sound.rate(now),
            playing=sum(listener.has_begun for listener in self._live),
            short_leads=sum(listener.is_short(now) for listener in self._live),
            first_p95_seconds=self._firsts.p95(now),
        )
