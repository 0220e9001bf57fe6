"""Values in this process that are forgotten some time after their last use."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class ExpiringMap(Generic[ValueT]):
    """By tenant and id. All live equally long, so that the first is always the next to go."""

    def __init__(
        self,
        seconds: float,
        size_of: Callable[[ValueT], int] = lambda _: 0,
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._seconds, self._size_of, self._now_seconds = seconds, size_of, now_seconds
        # (tenant, id) -> (forgotten at, value)
        self._kept: OrderedDict[tuple[str, str], tuple[float, ValueT]] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()

    def put(self, tenant: str, identifier: str, value: ValueT) -> float:
        """Returns when it will be forgotten, in seconds since the epoch."""
        self.drop(tenant, identifier)
        expires_at = self._now_seconds() + self._seconds
        self._kept[tenant, identifier] = (expires_at, value)
        self._counts[tenant] += 1
        self._sizes[tenant] += self._size_of(value)
        return expires_at

    def get(self, tenant: str, identifier: str, *, refresh: bool = True) -> ValueT | None:
        self._forget_old()
        _, value = self._kept.get((tenant, identifier), (0.0, None))
        if value is not None and refresh:
            self._kept[tenant, identifier] = (self._now_seconds() + self._seconds, value)
            self._kept.move_to_end((tenant, identifier))
        return value

    def drop(self, tenant: str, identifier: str) -> None:
        _, value = self._kept.pop((tenant, identifier), (0.0, None))
        if value is not None:
            self._uncount(tenant, value)

    def drop_oldest(self, tenant: str) -> None:
        self.drop(*next(key for key in self._kept if key[0] == tenant))

    def count(self, tenant: str) -> int:
        self._forget_old()
        return self._counts[tenant]

    def size(self, tenant: str) -> int:
        """The sum of `size_of` over a tenant's values."""
        self._forget_old()
        return self._sizes[tenant]

    def _forget_old(self) -> None:
        now = self._now_seconds()
        while self._kept:
            (tenant, _), (expires_at, value) = next(iter(self._kept.items()))
            if expires_at > now:
                return
            self._kept.popitem(last=False)
            self._uncount(tenant, value)

    def _uncount(self, tenant: str, value: ValueT) -> None:
        self._counts[tenant] -= 1
        self._sizes[tenant] -= self._size_of(value)
        if not self._counts[tenant]:
            del self._counts[tenant], self._sizes[tenant]
