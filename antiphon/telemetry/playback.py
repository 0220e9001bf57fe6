"""How far a listener is who plays what he gets at once, as far as its sender can tell: when his sound ends, and for
how long he has heard nothing."""

from typing import Final

SAMPLE_RATE_HZ: Final = 24_000


class Playback:
    """Moments are seconds of one monotonic clock."""

    def __init__(self) -> None:
        # When he has played all that was delivered; None before the first sound.
        self.ends_at: float | None = None
        # In which he heard nothing although the answer went on.
        self.silent_seconds = 0.0
        self.silences = 0

    def deliver(self, sample_count: int, now: float) -> float:
        """What comes too late is played when it comes, and all that follows later by as much. Returns when he will
        have heard it."""
        begins_at = now if self.ends_at is None else max(self.ends_at, now)
        if self.ends_at is not None and begins_at > self.ends_at:
            self.silent_seconds += begins_at - self.ends_at
            self.silences += 1
        self.ends_at = begins_at + sample_count / SAMPLE_RATE_HZ
        return self.ends_at
