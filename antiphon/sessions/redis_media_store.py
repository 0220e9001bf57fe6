"""Media in Redis: a value each, and a tenant's list of them by expiry with their sizes."""

from collections.abc import Collection
from typing import Final

from antiphon.sessions.media_store import hash_within_bound, media_full, unknown_medium
from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import Storage
from antiphon.storage.keys import key_of
from antiphon.storage.replies import data, integer
from antiphon.storage.scripts import NOW_MS, Script

# Keys of all: the medium, the tenant's list by expiry, their sizes.
_USE: Final = (
    NOW_MS
    + """
local function use(hash, lifetime_ms)
  redis.call('PEXPIRE', KEYS[1], lifetime_ms)
  redis.call('ZADD', KEYS[2], now_ms + lifetime_ms, hash)
  redis.call('PEXPIRE', KEYS[2], lifetime_ms)
  redis.call('PEXPIRE', KEYS[3], lifetime_ms)
end
"""
)
# hash, lifetime_ms -> its size, or -1
_TOUCH: Final = Script(
    _USE
    + """
local size = redis.call('STRLEN', KEYS[1])
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
use(ARGV[1], ARGV[2])
return size
"""
)
# hash, lifetime_ms, size, most bytes of a tenant -> 2 if it is there, 1 if there is room for it, 0 if not.
# The sum of all sizes is the field ''; a medium that expired is counted no more.
_RESERVE: Final = Script(
    _USE
    + """
local function forget(hash)
  local size = redis.call('HGET', KEYS[3], hash)
  if size then redis.call('HINCRBY', KEYS[3], '', -size) end
  redis.call('HDEL', KEYS[3], hash)
  redis.call('ZREM', KEYS[2], hash)
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  use(ARGV[1], ARGV[2])
  return 2
end
forget(ARGV[1])
for _, hash in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms)) do forget(hash) end
if tonumber(redis.call('HGET', KEYS[3], '') or 0) + ARGV[3] > tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
redis.call('HINCRBY', KEYS[3], '', ARGV[3])
use(ARGV[1], ARGV[2])
return 1
"""
)


class RedisMediaStore:
    """A large value crosses only where it must: not if it is there already, and never through a script."""

    def __init__(self, storage: Storage, settings: SessionSettings) -> None:
        self._storage, self._settings = storage, settings
        self._lifetime_ms = round(settings.media_seconds * 1e3)

    async def put(self, tenant: str, data: bytes) -> str:
        content_hash = await hash_within_bound(data, self._settings)
        keys = _keys(tenant, content_hash)
        arguments = (content_hash, self._lifetime_ms, len(data), self._settings.media_bytes)
        room = integer(await self._storage.run(_RESERVE, keys, arguments))
        if room == 0:
            raise media_full(self._settings)
        if room == 1:
            await self._storage.execute("SET", keys[0], data, "PX", self._lifetime_ms, moved_bytes=len(data))
        return content_hash

    async def get(self, tenant: str, content_hash: str) -> bytes:
        keys = _keys(tenant, content_hash)
        size = integer(await self._storage.run(_TOUCH, keys, (content_hash, self._lifetime_ms)))
        if size < 0:
            raise unknown_medium()
        found = await self._storage.execute("GET", keys[0], moved_bytes=size)
        if found is None:
            raise unknown_medium()
        return data(found)

    async def touch(self, tenant: str, content_hashes: Collection[str]) -> frozenset[str]:
        gone = set()
        for content_hash in content_hashes:
            size = await self._storage.run(_TOUCH, _keys(tenant, content_hash), (content_hash, self._lifetime_ms))
            if integer(size) < 0:
                gone.add(content_hash)
        return frozenset(gone)


def _keys(tenant: str, content_hash: str) -> tuple[str, str, str]:
    return key_of(tenant, "medium", content_hash), key_of(tenant, "media"), key_of(tenant, "media-sizes")
