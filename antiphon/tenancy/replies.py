"""Answers that are given again to whoever repeats his request: the seam, and its form in one process."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from antiphon.errors import TooLarge

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: tuple[Header, ...]
    body: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers)


# "mine": this request has to be answered now. "running": another with this key and body is being answered.
# "other": this key came with another body.
Claim = Reply | Literal["mine", "running", "other"]

CLAIM_SECONDS: Final = 900.0


class Replies(Protocol):
    """Of each tenant apart, and so many bytes of each. token: of one request, by which it holds its claim; nobody else
    has it. All raise Unavailable where nobody can tell."""

    async def claim(self, tenant: str, key: str, body_digest: str, token: str) -> Claim:
        """Whoever gets it has `CLAIM_SECONDS` to keep an answer or to drop the claim. The same token gets it again."""
        ...

    async def keep(self, tenant: str, key: str, body_digest: str, token: str, reply: Reply) -> None:
        """Does nothing where another has the claim by now. Raises TooLarge where the tenant has no room for it."""
        ...

    async def drop(self, tenant: str, key: str, token: str) -> None:
        """The next one answers, unless the claim is another's or the answer is kept."""
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    until: float
    body_digest: str
    token: str
    # None while it is being answered.
    reply: Reply | None = None


class MemoryReplies:
    def __init__(
        self, seconds: float, tenant_bytes: int, count: int = 1000, now_seconds: Callable[[], float] = time.monotonic
    ) -> None:
        """count: of answers, of all tenants."""
        self._seconds, self._tenant_bytes, self._count, self._now_seconds = seconds, tenant_bytes, count, now_seconds
        # By tenant and key, oldest first.
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def claim(self, tenant: str, key: str, body_digest: str, token: str) -> Claim:
        self._forget_old()
        known = self._kept.get((tenant, key))
        if known is not None and (known.reply is not None or known.token != token):
            return "other" if known.body_digest != body_digest else known.reply or "running"
        self._put(tenant, key, _Kept(self._now_seconds() + CLAIM_SECONDS, body_digest, token))
        return "mine"

    async def keep(self, tenant: str, key: str, body_digest: str, token: str, reply: Reply) -> None:
        self._forget_old()
        known = self._kept.get((tenant, key))
        if known is not None and (known.reply is not None or known.token != token):
            return
        if self._size_bytes(tenant) + reply.size_bytes > self._tenant_bytes:
            raise no_room(self._tenant_bytes)
        self._put(tenant, key, _Kept(self._now_seconds() + self._seconds, body_digest, token, reply))
        answered = [name for name, kept in self._kept.items() if kept.reply is not None]
        for name in answered[: -self._count]:
            del self._kept[name]

    async def drop(self, tenant: str, key: str, token: str) -> None:
        known = self._kept.get((tenant, key))
        if known is not None and known.reply is None and known.token == token:
            del self._kept[tenant, key]

    def _put(self, tenant: str, key: str, kept: _Kept) -> None:
        self._kept.pop((tenant, key), None)
        self._kept[tenant, key] = kept

    def _size_bytes(self, tenant: str) -> int:
        return sum(kept.reply.size_bytes for (owner, _), kept in self._kept.items() if owner == tenant and kept.reply)

    def _forget_old(self) -> None:
        now = self._now_seconds()
        for name in [name for name, kept in self._kept.items() if kept.until <= now]:
            del self._kept[name]


def no_room(tenant_bytes: int) -> TooLarge:
    return TooLarge(f"A tenant's answers that are kept to be given again have at most {tenant_bytes} bytes together.")
