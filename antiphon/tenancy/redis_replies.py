"""Answers that all gateways may give again: a hash each, and a tenant's list of them by expiry with their sizes."""

import json
from typing import Final, cast

from antiphon.storage.connection import Argument, Storage
from antiphon.storage.keys import key_of
from antiphon.storage.replies import integer
from antiphon.storage.scripts import NOW_MS, Script
from antiphon.tenancy.replies import CLAIM_SECONDS, Claim, Reply, no_room

# KEYS: the reply. ARGV: digest of the body, token, how long a claim lasts in ms. Reply: [] for the claimer, else the
# digest that is known, and head and body once there are.
_CLAIM: Final = Script(
    """
local known = redis.call('HMGET', KEYS[1], 'digest', 'head', 'body', 'token')
if known[1] and known[4] ~= ARGV[2] then return {known[1], known[2], known[3]} end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'token', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {}
"""
)

# KEYS: the reply, the tenant's list by expiry, their sizes with their sum as the field ''. ARGV: key, digest, token,
# head, body, how long it is kept in ms, most bytes of the tenant. Reply: 0 where there is no room, else 1.
# What is kept has no token.
_KEEP: Final = Script(
    NOW_MS
    + """
local known = redis.call('HMGET', KEYS[1], 'digest', 'token')
if known[1] and known[2] ~= ARGV[3] then return 1 end
local function forget(key)
  local size = redis.call('HGET', KEYS[3], key)
  if size then redis.call('HINCRBY', KEYS[3], '', -size) end
  redis.call('HDEL', KEYS[3], key)
  redis.call('ZREM', KEYS[2], key)
end
forget(ARGV[1])
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms)) do forget(key) end
local size = #ARGV[4] + #ARGV[5]
if tonumber(redis.call('HGET', KEYS[3], '') or 0) + size > tonumber(ARGV[7]) then return 0 end
redis.call('HSET', KEYS[3], ARGV[1], size)
redis.call('HINCRBY', KEYS[3], '', size)
redis.call('ZADD', KEYS[2], now_ms + ARGV[6], ARGV[1])
redis.call('HDEL', KEYS[1], 'token')
redis.call('HSET', KEYS[1], 'digest', ARGV[2], 'head', ARGV[4], 'body', ARGV[5])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[6]) end
return 1
"""
)

# KEYS: the reply. ARGV: token.
_DROP: Final = Script(
    """
if redis.call('HGET', KEYS[1], 'token') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
"""
)


class RedisReplies:
    def __init__(self, storage: Storage, seconds: float, tenant_bytes: int) -> None:
        self._storage, self._kept_ms, self._tenant_bytes = storage, round(seconds * 1e3), tenant_bytes

    async def claim(self, tenant: str, key: str, body_digest: str, token: str) -> Claim:
        arguments: list[Argument] = [body_digest, token, round(CLAIM_SECONDS * 1e3)]
        found = cast(list[bytes | None], await self._storage.run(_CLAIM, _keys(tenant, key)[:1], arguments))
        if not found:
            return "mine"
        digest, head, body = found
        if digest != body_digest.encode():
            return "other"
        return "running" if head is None or body is None else _read(head, body)

    async def keep(self, tenant: str, key: str, body_digest: str, token: str, reply: Reply) -> None:
        head = json.dumps(
            [reply.status, [[name.decode("latin-1"), value.decode("latin-1")] for name, value in reply.headers]]
        )
        arguments: list[Argument] = [key, body_digest, token, head, reply.body, self._kept_ms, self._tenant_bytes]
        kept = await self._storage.run(_KEEP, _keys(tenant, key), arguments, moved_bytes=len(reply.body))
        if not integer(kept):
            raise no_room(self._tenant_bytes)

    async def drop(self, tenant: str, key: str, token: str) -> None:
        await self._storage.run(_DROP, _keys(tenant, key)[:1], [token])


def _read(head: bytes, body: bytes) -> Reply:
    status, headers = json.loads(head)
    return Reply(status, tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers), body)


def _keys(tenant: str, key: str) -> tuple[str, str, str]:
    return key_of(tenant, "reply", key), key_of(tenant, "replies"), key_of(tenant, "reply-sizes")
