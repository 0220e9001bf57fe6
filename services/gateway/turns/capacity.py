"""How many turns this machine can serve while none of their listeners hears silence; learnt from those who are here.

Nobody knows beforehand what a turn costs. What is seen at once is whether somebody waits too long: then fewer are let
in, until nobody does; then a few more. Decides only: no clock, no I/O.
"""

from dataclasses import dataclass
from typing import Final

# So many of the open turns may be late before fewer are let in: one listener's slow line is not the machine's.
_LATE_SHARE: Final = 0.1
_CUT: Final = 0.9
# Carefully at first, then each time by twice as much.
_FIRST_GROWTH: Final = 0.5
# What was let in or kept out shows after a while.
_SECONDS_BETWEEN_CUTS: Final = 0.5
_SECONDS_BETWEEN_GROWTHS: Final = 2.0
# At least so many are let in whoever is late.
_LEAST: Final = 1.0


@dataclass(slots=True)
class Capacity:
    """most: what is never exceeded, and believed until somebody is late."""

    most: int
    _limit: float = 0.0
    _changed_at: float = float("-inf")
    _growth: float = _FIRST_GROWTH

    def __post_init__(self) -> None:
        self._limit = float(self.most)

    @property
    def turns(self) -> int:
        return int(self._limit)

    def observe(self, now: float, open_turns: int, late_turns: int) -> None:
        """now: seconds of a monotonic clock. To be told whenever somebody wants to be let in."""
        if late_turns > _LATE_SHARE * open_turns:
            if now - self._changed_at >= _SECONDS_BETWEEN_CUTS:
                self._change(now, min(self._limit, open_turns) * _CUT)
                self._growth = _FIRST_GROWTH
        elif open_turns >= int(self._limit) and now - self._changed_at >= _SECONDS_BETWEEN_GROWTHS:
            self._change(now, self._limit + self._growth)
            self._growth = min(2 * self._growth, self._limit / 4)

    def _change(self, now: float, limit: float) -> None:
        self._limit = min(max(limit, _LEAST), float(self.most))
        self._changed_at = now
