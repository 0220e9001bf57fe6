"""Answers that all gateways may give again."""

import json
from typing import Final, cast

from antiphon.storage.connection import Argument, Storage
from antiphon.storage.keys import key_of
from antiphon.storage.scripts import Script
from antiphon.tenancy.replies import CLAIM_SECONDS, Claim, Reply

# KEYS: the reply. ARGV: digest of the body, how long a claim lasts in ms. Reply: [] for the claimer, else the digest
# that is known, and head and body once there are.
_CLAIM: Final = Script(
    """
local known = redis.call('HMGET', KEYS[1], 'digest', 'head', 'body')
if known[1] then return known end
redis.call('HSET', KEYS[1], 'digest', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {}
""",
    repeatable=False,
)

# ARGV: digest, head, body, how long it is kept in ms.
_KEEP: Final = Script(
    """
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'head', ARGV[2], 'body', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 0
"""
)


class RedisReplies:
    def __init__(self, storage: Storage, seconds: float) -> None:
        self._storage, self._kept_ms = storage, round(seconds * 1e3)

    async def claim(self, tenant: str, key: str, body_digest: str) -> Claim:
        arguments: list[Argument] = [body_digest, round(CLAIM_SECONDS * 1e3)]
        found = cast(list[bytes | None], await self._storage.run(_CLAIM, [_key(tenant, key)], arguments))
        if not found:
            return "mine"
        digest, head, body = found
        if digest != body_digest.encode():
            return "other"
        return "running" if head is None or body is None else _read(head, body)

    async def keep(self, tenant: str, key: str, body_digest: str, reply: Reply) -> None:
        head = json.dumps(
            [reply.status, [[name.decode("latin-1"), value.decode("latin-1")] for name, value in reply.headers]]
        )
        await self._storage.run(_KEEP, [_key(tenant, key)], [body_digest, head, reply.body, self._kept_ms])

    async def drop(self, tenant: str, key: str) -> None:
        await self._storage.execute("DEL", _key(tenant, key))


def _read(head: bytes, body: bytes) -> Reply:
    status, headers = json.loads(head)
    return Reply(status, tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers), body)


def _key(tenant: str, key: str) -> str:
    return key_of(tenant, "reply", key)
