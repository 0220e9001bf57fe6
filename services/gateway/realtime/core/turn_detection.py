"""When a user begins and ends to speak, from how likely each window of his sound is speech."""

from dataclasses import dataclass
from typing import Final

WINDOW_MS: Final = 32
# So many windows in a row begin a speech: a click is none.
_ONSET_WINDOWS: Final = 2
# Speech goes on while it is this much less likely than its beginning has to be.
_HYSTERESIS: Final = 0.15


@dataclass(frozen=True, slots=True)
class TurnDetection:
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_ms: int = 500
    # Of quiet after an answer, until one is given unasked.
    idle_ms: int | None = None
    creates_response: bool = True
    interrupts_response: bool = True


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    # Of all sound of the session; with the padding before it.
    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    # With the silence that shows it.
    at_ms: int


@dataclass(frozen=True, slots=True)
class StillQuiet:
    at_ms: int


Heard = SpeechBegan | SpeechEnded | StillQuiet


class TurnDetector:
    def __init__(self, options: TurnDetection, base_ms: int) -> None:
        """base_ms: where in the session's sound its first window begins."""
        self.options, self._now_ms = options, base_ms
        self._begin_ms = base_ms
        self._loud_windows = 0
        self._quiet_ms = 0
        self.is_speech = False

    def push(self, probability: float) -> Heard:
        """One window; while speech goes on, and in its pauses, StillQuiet says only where it is."""
        self._now_ms += WINDOW_MS
        return self._during(probability) if self.is_speech else self._before(probability)

    def reset(self) -> None:
        """The speech so far has been taken or thrown away; what comes begins anew."""
        self.is_speech, self._loud_windows, self._quiet_ms = False, 0, 0
        self._begin_ms = self._now_ms

    def _before(self, probability: float) -> Heard:
        if probability < self.options.threshold:
            self._loud_windows = 0
            return StillQuiet(self._now_ms)
        self._loud_windows += 1
        if self._loud_windows < _ONSET_WINDOWS:
            return StillQuiet(self._now_ms)
        self.is_speech, self._quiet_ms = True, 0
        onset_ms = self._now_ms - self._loud_windows * WINDOW_MS
        return SpeechBegan(max(self._begin_ms, onset_ms - self.options.prefix_padding_ms))

    def _during(self, probability: float) -> Heard:
        if probability >= self.options.threshold - _HYSTERESIS:
            self._quiet_ms = 0
            return StillQuiet(self._now_ms)
        self._quiet_ms += WINDOW_MS
        if self._quiet_ms < self.options.silence_ms:
            return StillQuiet(self._now_ms)
        self.reset()
        return SpeechEnded(self._now_ms)
