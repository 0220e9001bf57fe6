"""When the frames of one speech are decoded and how many together: the first alone and at once, the others the later
and the more together the more sound their listener still has."""

import math
from dataclasses import dataclass

from antiphon.telemetry.playback import Playback

# Of the time that a push took, in what the next one is expected to take; a longer one counts in full.
_NEWEST_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Group:
    """Moments are seconds of one monotonic clock."""

    # Frames; as many need not be waited for any longer.
    most: int
    # Until then more frames may join; after it whatever is there goes.
    fills_until: float
    # When the listener has played everything before it.
    due: float


class Pace:
    """A push costs nearly the same for one frame as for some, so frames wait for others while the listener has sound
    for `lead_seconds` and for the time that a push takes."""

    def __init__(self, *, frames_per_push: int, lead_seconds: float) -> None:
        self._frames_per_push, self._lead_seconds = frames_per_push, lead_seconds
        self._playback = Playback()
        self._push_seconds = 0.0

    def next_group(self, now: float) -> Group:
        ends_at = self._playback.ends_at
        if ends_at is None:
            return Group(most=1, fills_until=-math.inf, due=now)
        return Group(self._frames_per_push, ends_at - self._lead_seconds - self._push_seconds, ends_at)

    def pushed(self, seconds: float) -> None:
        """The time from asking for a push until its sound is there, the waiting for other speeches included."""
        smooth = self._push_seconds + _NEWEST_SHARE * (seconds - self._push_seconds)
        self._push_seconds = max(seconds, smooth)

    def delivered(self, sample_count: int, now: float) -> None:
        if sample_count:
            self._playback.deliver(sample_count, now)
