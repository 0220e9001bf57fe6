"""What a session hears: its input buffer, and who decides when a turn of the user begins and ends."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from services.gateway.realtime.core.input_buffer import InputBuffer
from services.gateway.realtime.core.items import Encoding
from services.gateway.realtime.core.turn_detection import (
    SpeechBegan,
    SpeechEnded,
    StillQuiet,
    TurnDetection,
    TurnDetector,
)


@dataclass(frozen=True, slots=True)
class TurnBegan:
    at_ms: int


@dataclass(frozen=True, slots=True)
class TurnDone:
    at_ms: int
    pcm16: bytes = field(repr=False)
    # Nobody spoke: the user was waited for from here on.
    quiet_since_ms: int | None = None


class Ears:
    def __init__(
        self, encoding: Encoding, detection: TurnDetection | None, most_seconds: float, quiet_seconds: float
    ) -> None:
        self._most_seconds, self._quiet_seconds = most_seconds, quiet_seconds
        self.buffer = InputBuffer(encoding, most_seconds)
        self.detector = TurnDetector(detection, 0) if detection else None
        # Counts detectors: windows of speech are cut anew for each.
        self.generation = 0
        # When the listener had heard all that was said to him; None before the first answer.
        self.quiet_since: float | None = None

    def configure(self, encoding: Encoding, detection: TurnDetection | None) -> None:
        """Another encoding throws away what is held, for it cannot be one sound with what follows."""
        if encoding != self.buffer.encoding:
            self.buffer = InputBuffer(encoding, self._most_seconds, self.buffer.end_ms)
            self.detector = None
        if detection is None:
            self.detector = None
        elif self.detector is None:
            self.detector = TurnDetector(detection, round(self.buffer.end_ms))
            self.generation += 1
        else:
            self.detector.options = detection

    def hear(
        self, pcm16: bytes, probabilities: Sequence[float], *, may_time_out: bool, now: float
    ) -> Iterator[TurnBegan | TurnDone]:
        """may_time_out: nobody is being answered."""
        if self.detector is not None and self.buffer.is_full:
            yield from self._make_room(self.detector)
        self.buffer.append(pcm16)
        if self.detector is None:
            return
        for probability in probabilities:
            yield from self._window(self.detector, probability)
        if not self.detector.is_speech:
            yield from self._when_quiet(self.detector.options, may_time_out, now)

    def take_all(self) -> bytes:
        if self.detector is not None:
            self.detector.reset()
        return self.buffer.take_all()

    def _window(self, detector: TurnDetector, probability: float) -> Iterator[TurnBegan | TurnDone]:
        match detector.push(probability):
            case SpeechBegan(at_ms):
                self.buffer.drop_before(at_ms)
                yield TurnBegan(at_ms)
            case SpeechEnded(at_ms):
                self.quiet_since = None
                yield TurnDone(at_ms, self.buffer.take_until(at_ms))
            case StillQuiet():
                pass

    def _make_room(self, detector: TurnDetector) -> Iterator[TurnDone]:
        """Whoever speaks longer than can be held is answered in between."""
        if detector.is_speech:
            detector.reset()
            yield TurnDone(round(self.buffer.end_ms), self.buffer.take_all())

    def _when_quiet(self, options: TurnDetection, may_time_out: bool, now: float) -> Iterator[TurnDone]:
        self.buffer.drop_before(self.buffer.end_ms - self._quiet_seconds * 1e3)
        if options.idle_ms is None or self.quiet_since is None or not may_time_out:
            return
        if now - self.quiet_since >= options.idle_ms / 1e3:
            self.quiet_since = None
            begin_ms, end_ms = max(0, round(self.buffer.end_ms) - options.idle_ms), round(self.buffer.end_ms)
            self.buffer.drop_before(begin_ms)
            yield TurnDone(end_ms, self.take_all(), begin_ms)
