"""What trunks have reported of their routing lately: the latest of each, for as long as it is not too old."""

import time
from collections import OrderedDict
from collections.abc import Callable

from antiphon.v1.expert_service_pb2 import TrunkRouting


class Reports:
    def __init__(self, *, most: int, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        """Of more than `most` trunks, those that reported last are kept."""
        self._most, self._seconds, self._now = most, seconds, now
        self._latest: OrderedDict[str, tuple[float, TrunkRouting]] = OrderedDict()

    def keep(self, routing: TrunkRouting) -> None:
        self._latest.pop(routing.trunk_id, None)
        self._latest[routing.trunk_id] = self._now(), routing
        if len(self._latest) > self._most:
            self._latest.popitem(last=False)

    def latest(self) -> list[TrunkRouting]:
        """With the time that each lay here in its age."""
        now = self._now()
        while self._latest and next(iter(self._latest.values()))[0] <= now - self._seconds:
            self._latest.popitem(last=False)
        return [_aged(routing, now - kept) for kept, routing in self._latest.values()]


def _aged(routing: TrunkRouting, seconds: float) -> TrunkRouting:
    aged = TrunkRouting()
    aged.CopyFrom(routing)
    aged.age_seconds += seconds
    return aged
