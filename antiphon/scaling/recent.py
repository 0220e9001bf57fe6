"""Rates and percentiles of a service's latest seconds, from which its signals are made. Of one thread, or under a lock;
moments are seconds of one monotonic clock."""

from collections import deque
from typing import Final

LATEST_SECONDS: Final = 10.0
_BUCKETS: Final = 10
_VALUES: Final = 512


class RecentSum:
    """What was added in the latest seconds, in as many buckets."""

    def __init__(self, seconds: float = LATEST_SECONDS) -> None:
        self._seconds = seconds
        self._buckets: deque[list[float]] = deque()
        self._began: float | None = None

    def add(self, now: float, amount: float) -> None:
        self._began = now if self._began is None else self._began
        if self._buckets and now - self._buckets[-1][0] < self._seconds / _BUCKETS:
            self._buckets[-1][1] += amount
        else:
            self._buckets.append([now, amount])
        self._forget(now)

    def rate(self, now: float) -> float:
        """A second. In the first seconds, of those alone."""
        self._forget(now)
        if self._began is None:
            return 0.0
        span = min(self._seconds, max(now - self._began, self._seconds / _BUCKETS))
        return sum(amount for _, amount in self._buckets) / span

    def _forget(self, now: float) -> None:
        while self._buckets and self._buckets[0][0] < now - self._seconds:
            self._buckets.popleft()


class RecentValues:
    """The latest values, at most some hundreds."""

    def __init__(self, seconds: float = LATEST_SECONDS) -> None:
        self._seconds = seconds
        self._values: deque[tuple[float, float]] = deque(maxlen=_VALUES)

    def add(self, now: float, value: float) -> None:
        self._values.append((now, value))

    def p95(self, now: float) -> float:
        """Zero without any."""
        values = sorted(value for at, value in self._values if at >= now - self._seconds)
        return values[int(0.95 * (len(values) - 1))] if values else 0.0
