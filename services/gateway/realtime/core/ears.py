"""What a session hears: its input buffer, and who decides when a turn of the user begins and ends."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.gateway.realtime.core.input_buffer import InputBuffer
from services.gateway.realtime.core.items import Encoding
from services.gateway.realtime.core.turn_detection import (
    SpeechBegan,
    SpeechEnded,
    SpeechPaused,
    SpeechWentOn,
    StillQuiet,
    TurnDetection,
    TurnDetector,
)

# What the encoders encode at once, and remember by its content.
_ENCODED_MS: Final = 8_000
# What follows a moment so closely is in its spectrum, and in its samples at another rate.
_SETTLED_MS: Final = 100


@dataclass(frozen=True, slots=True)
class TurnBegan:
    at_ms: int


@dataclass(frozen=True, slots=True)
class TurnDone:
    at_ms: int
    pcm16: bytes = field(repr=False)
    # Nobody spoke: the user was waited for from here on.
    quiet_since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class TurnPaused:
    """This would be the turn, if nothing followed."""

    pcm16: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TurnWentOn:
    pass


@dataclass(frozen=True, slots=True)
class SoundGrew:
    """What comes of a turn so far, whose end is not in sight."""

    pcm16: bytes = field(repr=False)


Fact = TurnBegan | TurnDone | TurnPaused | TurnWentOn | SoundGrew


class Ears:
    def __init__(
        self, encoding: Encoding, detection: TurnDetection | None, most_seconds: float, quiet_seconds: float
    ) -> None:
        self._most_seconds, self._quiet_seconds = most_seconds, quiet_seconds
        self.buffer = InputBuffer(encoding, most_seconds)
        self.detector = TurnDetector(detection, 0) if detection else None
        # Counts detectors: windows of speech are cut anew for each.
        self.generation = 0
        # Up to where SoundGrew has been told.
        self._grew_to_ms = 0.0
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

    def hear(self, pcm16: bytes, probabilities: Sequence[float], *, may_time_out: bool, now: float) -> Iterator[Fact]:
        """may_time_out: nobody is being answered."""
        if self.detector is not None and self.buffer.is_full:
            yield from self._make_room(self.detector)
        self.buffer.append(pcm16)
        if self.detector is None:
            yield from self._growth()
            return
        for probability in probabilities:
            yield from self._window(self.detector, probability)
        if self.detector.is_speech:
            yield from self._growth()
        if not self.detector.is_speech:
            yield from self._when_quiet(self.detector.options, may_time_out, now)

    def take_all(self) -> bytes:
        if self.detector is not None:
            self.detector.reset()
        return self.buffer.take_all()

    def _window(self, detector: TurnDetector, probability: float) -> Iterator[Fact]:
        match detector.push(probability):
            case SpeechBegan(at_ms):
                self.buffer.drop_before(at_ms)
                yield TurnBegan(at_ms)
            case SpeechPaused(at_ms):
                yield TurnPaused(self.buffer.until(at_ms))
            case SpeechWentOn():
                yield TurnWentOn()
            case SpeechEnded(at_ms, sound_ends_ms):
                self.quiet_since = None
                pcm16 = self.buffer.take_until(sound_ends_ms)
                self.buffer.drop_before(at_ms)
                yield TurnDone(at_ms, pcm16)
            case StillQuiet():
                pass

    def _growth(self) -> Iterator[SoundGrew]:
        """Once for each time that one more of the encoders' windows can be told for good."""
        whole_ms = (self.buffer.held_ms - _SETTLED_MS) // _ENCODED_MS * _ENCODED_MS
        if whole_ms > 0 and self.buffer.start_ms + whole_ms > self._grew_to_ms:
            self._grew_to_ms = self.buffer.start_ms + whole_ms
            yield SoundGrew(self.buffer.until(self._grew_to_ms + _SETTLED_MS))

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
