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
    # Of the silence after a speech, kept with it; None keeps all of it.
    trailing_ms: int | None = None
    # The answer is begun when so much silence has been heard, before it is known that nothing follows.
    foresees: bool = False
    # Of quiet after an answer, until one is given unasked.
    idle_ms: int | None = None
    creates_response: bool = True
    interrupts_response: bool = True

    @property
    def kept_silence_ms(self) -> int:
        return self.silence_ms if self.trailing_ms is None else min(self.trailing_ms, self.silence_ms)


@dataclass(frozen=True, slots=True)
class SpeechBegan:
    # Of all sound of the session; with the padding before it.
    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechPaused:
    # Here its sound ends, unless it goes on.
    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechWentOn:
    at_ms: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    # With the silence that shows it.
    at_ms: int
    # With the silence that is kept.
    sound_ends_ms: int


@dataclass(frozen=True, slots=True)
class StillQuiet:
    at_ms: int


Heard = SpeechBegan | SpeechPaused | SpeechWentOn | SpeechEnded | StillQuiet


class TurnDetector:
    def __init__(self, options: TurnDetection, base_ms: int) -> None:
        """base_ms: where in the session's sound its first window begins."""
        self.options, self._now_ms = options, base_ms
        self._begin_ms = base_ms
        self._loud_windows = 0
        self._quiet_ms = 0
        self._paused_at_ms: int | None = None
        self.is_speech = False

    def push(self, probability: float) -> Heard:
        """One window; while speech goes on, and in its pauses, StillQuiet says only where it is."""
        self._now_ms += WINDOW_MS
        return self._during(probability) if self.is_speech else self._before(probability)

    def reset(self) -> None:
        """The speech so far has been taken or thrown away; what comes begins anew."""
        self.is_speech, self._loud_windows, self._quiet_ms, self._paused_at_ms = False, 0, 0, None
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
            was_paused, self._quiet_ms, self._paused_at_ms = self._paused_at_ms is not None, 0, None
            return SpeechWentOn(self._now_ms) if was_paused else StillQuiet(self._now_ms)
        self._quiet_ms += WINDOW_MS
        has_paused = self._paused_at_ms is None and self._quiet_ms >= self.options.kept_silence_ms
        if has_paused:
            self._paused_at_ms = self._now_ms
        if self._quiet_ms < self.options.silence_ms:
            return SpeechPaused(self._now_ms) if has_paused else StillQuiet(self._now_ms)
        ended = SpeechEnded(self._now_ms, self._paused_at_ms or self._now_ms)
        self.reset()
        return ended
