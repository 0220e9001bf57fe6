"""Client secrets that all gateways know; Redis forgets them when they expire."""

import json
import time
from collections.abc import Callable
from typing import Final, cast

from antiphon.errors import InternalError
from antiphon.storage.connection import Storage
from antiphon.storage.keys import key_of
from antiphon.tenancy.client_secrets import Grant, digest_of, new_secret, unknown_secret

_SPACE: Final = "client-secrets-"


class RedisClientSecrets:
    def __init__(self, storage: Storage, now_seconds: Callable[[], float] = time.time) -> None:
        self._storage, self._now_seconds = storage, now_seconds

    async def keep(self, grant: Grant) -> str:
        secret = new_secret()
        head = json.dumps([grant.key_digest, grant.expires_at]).encode()
        value = head + b"\n" + grant.content
        await self._storage.execute("SET", _key(secret), value, "PXAT", grant.expires_at * 1000, moved_bytes=len(value))
        return secret

    async def find(self, secret: str) -> Grant:
        value = cast(bytes | None, await self._storage.execute("GET", _key(secret)))
        if value is None:
            raise unknown_secret()
        head, separator, content = value.partition(b"\n")
        if not separator:
            raise InternalError("A client secret in Redis cannot be read.")
        key_digest, expires_at = json.loads(head)
        if expires_at <= self._now_seconds():
            raise unknown_secret()
        return Grant(key_digest, content, expires_at)


def _key(secret: str) -> str:
    """Whoever brings it does not say whose it is: each lies on a node of its own."""
    digest = digest_of(secret)
    return key_of(_SPACE + digest[:16], "grant", digest)
