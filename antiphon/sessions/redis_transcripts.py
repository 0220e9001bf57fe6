"""Transcripts in Redis: one hash of a tenant's texts, and their ids by expiry."""

from typing import Final

from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import Storage
from antiphon.storage.keys import key_of
from antiphon.storage.replies import data, integer
from antiphon.storage.scripts import NOW_MS, Script

# Keys of both: the texts, their ids by expiry.
# id, transcript, lifetime_ms, most of a tenant -> when it expires, in ms since the epoch
_KEEP: Final = Script(
    NOW_MS
    + """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now_ms + ARGV[3], ARGV[1])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms)) do redis.call('HDEL', KEYS[1], id) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now_ms)
local surplus = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[4])
if surplus > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, surplus - 1)) do redis.call('HDEL', KEYS[1], id) end
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, surplus - 1)
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return now_ms + ARGV[3]
"""
)
# id -> transcript, or nothing
_FIND: Final = Script(
    NOW_MS
    + """
local expires_ms = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not expires_ms or tonumber(expires_ms) <= now_ms then return false end
return redis.call('HGET', KEYS[1], ARGV[1])
"""
)


class RedisTranscripts:
    def __init__(self, storage: Storage, settings: SessionSettings) -> None:
        self._storage, self._count = storage, settings.transcript_count
        self._lifetime_ms = round(settings.transcript_seconds * 1e3)

    async def keep(self, tenant: str, audio_id: str, transcript: str) -> int:
        arguments = (audio_id, _encoded(transcript), self._lifetime_ms, self._count)
        return integer(await self._storage.run(_KEEP, _keys(tenant), arguments)) // 1000

    async def find(self, tenant: str, audio_id: str) -> str | None:
        found = await self._storage.run(_FIND, _keys(tenant), (audio_id,))
        return None if found is None else data(found).decode("utf-8", "surrogatepass")


def _encoded(transcript: str) -> bytes:
    return transcript.encode("utf-8", "surrogatepass")


def _keys(tenant: str) -> tuple[str, str]:
    return key_of(tenant, "transcripts"), key_of(tenant, "transcripts-by-expiry")
