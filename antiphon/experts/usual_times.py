"""How long calls of a size usually take, and so how long one is waited for."""

from dataclasses import dataclass, field
from typing import Final

# The weight of the latest call.
_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Patience:
    """A call is given up once it has taken so many times what it usually does, but neither before `least_seconds` nor
    after `most_seconds`."""

    factor: float
    least_seconds: float
    most_seconds: float

    def seconds(self, usual_seconds: float | None) -> float:
        """usual_seconds: None when nothing is known."""
        if usual_seconds is None:
            return self.most_seconds
        return min(max(self.factor * usual_seconds, self.least_seconds), self.most_seconds)


@dataclass(slots=True)
class UsualTimes:
    """Of one shard; sizes that differ by less than a factor of two are one."""

    _seconds: dict[int, float] = field(default_factory=dict)

    def of(self, pairs: int) -> float | None:
        """None while no call of the size has been seen."""
        return self._seconds.get(pairs.bit_length())

    def saw(self, pairs: int, seconds: float) -> None:
        before = self._seconds.get(pairs.bit_length(), seconds)
        self._seconds[pairs.bit_length()] = before + _SHARE * (seconds - before)
