"""Events in Redis: a stream whose entries are numbered from 1, trimmed by count, bytes and age at each append."""

import uuid
from typing import Final

from antiphon.sessions.event_log import EventPage, LoggedEvent, page_after, require_event_fits
from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import Reply, Storage
from antiphon.storage.keys import key_of
from antiphon.storage.replies import array, data, integer
from antiphon.storage.scripts import NOW_MS, Script

# Keys of both: the stream, its sums. Entry n has the id n-0 and the fields (at, when in ms) and (event, it).
# token, event, most events, most bytes, lifetime_ms -> the event's id
_APPEND: Final = Script(
    NOW_MS
    + """
local sums = redis.call('HMGET', KEYS[2], 'token', 'last', 'bytes')
if sums[1] == ARGV[1] then return tonumber(sums[2]) end
local last = tonumber(sums[2] or 0) + 1
local bytes = tonumber(sums[3] or 0) + #ARGV[2]
redis.call('XADD', KEYS[1], last .. '-0', 'at', now_ms, 'event', ARGV[2])
local count = redis.call('XLEN', KEYS[1])
while count > 1 do
  local fields = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][2]
  local is_old = tonumber(fields[2]) <= now_ms - tonumber(ARGV[5])
  if count <= tonumber(ARGV[3]) and bytes <= tonumber(ARGV[4]) and not is_old then break end
  count = count - 1
  bytes = bytes - #fields[4]
  redis.call('XTRIM', KEYS[1], 'MAXLEN', count)
end
redis.call('HSET', KEYS[2], 'token', ARGV[1], 'last', last, 'bytes', bytes)
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return last
"""
)
# event id, limit, lifetime_ms -> the last id, and id and event of each that follows
_AFTER: Final = Script(
    NOW_MS
    + """
local found = {tonumber(redis.call('HGET', KEYS[2], 'last') or 0)}
local from = tonumber(ARGV[1]) + 1
local oldest_ms = now_ms - tonumber(ARGV[3])
while #found <= tonumber(ARGV[2]) * 2 do
  local entries = redis.call('XRANGE', KEYS[1], string.format('%d-0', from), '+', 'COUNT', ARGV[2])
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    from = tonumber(string.match(entry[1], '%d+')) + 1
    if tonumber(entry[2][2]) > oldest_ms and #found <= tonumber(ARGV[2]) * 2 then
      found[#found + 1] = from - 1
      found[#found + 1] = entry[2][4]
    end
  end
end
return found
"""
)


class RedisEventLog:
    def __init__(self, storage: Storage, settings: SessionSettings) -> None:
        self._storage, self._settings = storage, settings
        self._lifetime_ms = round(settings.event_seconds * 1e3)

    async def append(self, tenant: str, stream_id: str, event: bytes) -> int:
        require_event_fits(event, self._settings)
        token = uuid.uuid4().bytes
        arguments = (token, event, self._settings.event_count, self._settings.event_bytes, self._lifetime_ms)
        return integer(await self._storage.run(_APPEND, _keys(tenant, stream_id), arguments, moved_bytes=len(event)))

    async def after(self, tenant: str, stream_id: str, event_id: int, limit: int) -> EventPage:
        arguments = (event_id, limit, self._lifetime_ms)
        size = self._settings.event_bytes
        reply = await self._storage.run(_AFTER, _keys(tenant, stream_id), arguments, moved_bytes=size)
        return _page(event_id, reply)


def _page(event_id: int, reply: Reply) -> EventPage:
    last_id, *following = array(reply)
    pairs = zip(following[::2], following[1::2], strict=True)
    events = tuple(LoggedEvent(integer(number), data(event)) for number, event in pairs)
    return page_after(event_id, integer(last_id), events)


def _keys(tenant: str, stream_id: str) -> tuple[str, str]:
    return key_of(tenant, "events", stream_id), key_of(tenant, "events-sums", stream_id)
