"""How busy a shard has been lately, from the calls that it has computed."""

import time
from collections import deque
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from antiphon.experts.table import ShardLoad

_WINDOW_SECONDS: Final = 5.0
# Of the window, if there are more of them; they tell the same.
_CALLS: Final = 4096


@dataclass(frozen=True, slots=True)
class ComputedCall:
    """Moments are seconds of time.monotonic."""

    arrived: float
    began: float
    ended: float

    @property
    def queued_microseconds(self) -> int:
        return int((self.began - self.arrived) * 1e6)

    @property
    def computed_microseconds(self) -> int:
        return int((self.ended - self.began) * 1e6)


class LoadMeter:
    """One thread at a time adds; any may read."""

    def __init__(self) -> None:
        self._latest: deque[ComputedCall] = deque(maxlen=_CALLS)
        self._calls = self._pairs = 0

    @property
    def calls(self) -> int:
        return self._calls

    def add(self, call: ComputedCall, pairs: int) -> None:
        self._latest.append(call)
        self._calls += 1
        self._pairs += pairs

    def load(self, *, trunks: int) -> ShardLoad:
        now = time.monotonic()
        began = now - _WINDOW_SECONDS
        calls = list(takewhile(lambda call: call.ended > began, reversed(self._latest.copy())))
        if not calls:
            return ShardLoad(trunks=trunks, calls=self._calls, pairs=self._pairs)
        if len(calls) == _CALLS:
            began = calls[-1].began
        busy = sum(call.ended - max(call.began, began) for call in calls)
        return ShardLoad(
            queued_p95_microseconds=_quantile([call.queued_microseconds for call in calls], 0.95),
            computed_p50_microseconds=_quantile([call.computed_microseconds for call in calls], 0.5),
            utilisation=min(1.0, busy / (now - began)),
            trunks=trunks,
            calls=self._calls,
            pairs=self._pairs,
        )


def _quantile(values: list[int], share: float) -> int:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
