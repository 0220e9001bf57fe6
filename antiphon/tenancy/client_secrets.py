"""Short-lived secrets, each of which stands for a key in one use: the seam, and its form in one process."""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from antiphon.errors import Unauthenticated

SECRET_PREFIX: Final = "ek_"  # noqa: S105 - what secrets begin with


@dataclass(frozen=True, slots=True)
class Grant:
    """What a secret stands for."""

    # Of the key on whose account it was made (`Caller.key_digest`).
    key_digest: str = field(repr=False)
    # What was set up for whoever brings it, as its maker wrote it.
    content: bytes = field(repr=False)
    # Seconds since the epoch.
    expires_at: int


class ClientSecrets(Protocol):
    """Raises Unavailable where nobody can tell."""

    async def keep(self, grant: Grant) -> str:
        """Returns the secret; it is known to nobody else."""
        ...

    async def find(self, secret: str) -> Grant:
        """Raises Unauthenticated."""
        ...


class MemoryClientSecrets:
    """By digest; the oldest are forgotten first."""

    def __init__(self, most: int, now_seconds: Callable[[], float] = time.time) -> None:
        self._most, self._now_seconds = most, now_seconds
        self._grants: OrderedDict[str, Grant] = OrderedDict()

    async def keep(self, grant: Grant) -> str:
        secret = new_secret()
        self._grants[digest_of(secret)] = grant
        while len(self._grants) > self._most:
            self._grants.popitem(last=False)
        return secret

    async def find(self, secret: str) -> Grant:
        grant = self._grants.get(digest_of(secret))
        if grant is None or grant.expires_at <= self._now_seconds():
            self._grants.pop(digest_of(secret), None)
            raise unknown_secret()
        return grant


def new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def unknown_secret() -> Unauthenticated:
    return Unauthenticated(
        "This client secret is unknown or has expired. Make another at POST /v1/realtime/client_secrets."
    )
