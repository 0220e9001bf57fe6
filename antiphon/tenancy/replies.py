"""Answers that are given again to whoever repeats his request: the seam, and its form in one process."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: tuple[Header, ...]
    body: bytes


# "mine": this request has to be answered now. "running": another with this key and body is being answered.
# "other": this key came with another body.
Claim = Reply | Literal["mine", "running", "other"]

CLAIM_SECONDS: Final = 900.0


class Replies(Protocol):
    """Of each tenant apart. Raises Unavailable where nobody can tell."""

    async def claim(self, tenant: str, key: str, body_digest: str) -> Claim:
        """Whoever gets it has `CLAIM_SECONDS` to keep an answer or to drop the claim."""
        ...

    async def keep(self, tenant: str, key: str, body_digest: str, reply: Reply) -> None: ...

    async def drop(self, tenant: str, key: str) -> None:
        """The next one answers."""
        ...


class MemoryReplies:
    def __init__(self, seconds: float, count: int = 1000, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._count, self._now_seconds = seconds, count, now_seconds
        # (tenant, key) -> (until, digest of the body, reply once there is one), oldest first
        self._kept: OrderedDict[tuple[str, str], tuple[float, str, Reply | None]] = OrderedDict()

    async def claim(self, tenant: str, key: str, body_digest: str) -> Claim:
        until, known_digest, reply = self._kept.get((tenant, key), (0.0, "", None))
        if self._now_seconds() < until:
            if known_digest != body_digest:
                return "other"
            return reply or "running"
        self._put(tenant, key, CLAIM_SECONDS, body_digest, None)
        return "mine"

    async def keep(self, tenant: str, key: str, body_digest: str, reply: Reply) -> None:
        self._put(tenant, key, self._seconds, body_digest, reply)

    async def drop(self, tenant: str, key: str) -> None:
        self._kept.pop((tenant, key), None)

    def _put(self, tenant: str, key: str, seconds: float, body_digest: str, reply: Reply | None) -> None:
        self._kept.pop((tenant, key), None)
        self._kept[tenant, key] = (self._now_seconds() + seconds, body_digest, reply)
        while len(self._kept) > self._count:
            self._kept.popitem(last=False)
