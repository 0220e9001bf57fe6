"""Events in Redis: a stream numbered by its writer and one of their sounds, trimmed at each append, beside the
conversation whose version decides who may write."""

import uuid
from collections.abc import Sequence
from typing import Final

from antiphon.sessions.conversation import Conversation
from antiphon.sessions.conversation_store import (
    id_taken,
    packed_within_bounds,
    saved_by_another,
    too_many,
    unknown_conversation,
)
from antiphon.sessions.event_log import EventPage, LoggedEvent, page_after, require_events_fit
from antiphon.sessions.redis_conversation_store import USE_CONVERSATION
from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import Argument, Reply, Storage
from antiphon.storage.keys import key_of
from antiphon.storage.replies import array, data, integer
from antiphon.storage.scripts import NOW_MS, Script

# Keys: the conversation, the tenant's list, the stream, its sounds, its sums. Entry n has the id n-0 and the fields
# (at, when in ms), (event, it) and (sound, its bytes); sounds are entries of the same id.
# id, lifetime_ms, token, data or nothing, expected version, most of a tenant,
# most events, most bytes, most bytes of sound, lifetime_ms of events, then number, event and sound of each
# -> 1 and the version; 0 and the version that it has; -1 and 0 for one too many
_KEEP: Final = Script(
    NOW_MS
    + USE_CONVERSATION
    + """
local found = redis.call('HMGET', KEYS[1], 'version', 'token')
local version = tonumber(found[1] or 0)
if found[2] == ARGV[3] then return {1, version} end
if version ~= tonumber(ARGV[5]) or (version == 0 and #ARGV[4] == 0) then return {0, version} end
if version == 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now_ms)
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[6]) then return {-1, 0} end
end
if #ARGV[4] > 0 then
  version = version + 1
  redis.call('HSET', KEYS[1], 'version', version, 'token', ARGV[3], 'data', ARGV[4])
end
use(ARGV[1], ARGV[2])
if #ARGV == 10 then return {1, version} end

local sums = redis.call('HMGET', KEYS[5], 'last', 'bytes', 'sound_bytes')
local last, bytes, sound_bytes = tonumber(sums[1] or 0), tonumber(sums[2] or 0), tonumber(sums[3] or 0)
for i = 11, #ARGV, 3 do
  if tonumber(ARGV[i]) > last then
    last = tonumber(ARGV[i])
    bytes = bytes + #ARGV[i + 1]
    redis.call('XADD', KEYS[3], last .. '-0', 'at', now_ms, 'event', ARGV[i + 1], 'sound', #ARGV[i + 2])
    if #ARGV[i + 2] > 0 then
      sound_bytes = sound_bytes + #ARGV[i + 2]
      redis.call('XADD', KEYS[4], last .. '-0', 'sound', ARGV[i + 2])
    end
  end
end
local function oldest(key) return redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1] end
local count = redis.call('XLEN', KEYS[3])
while count > 1 do
  local fields = oldest(KEYS[3])[2]
  local is_old = tonumber(fields[2]) <= now_ms - tonumber(ARGV[10])
  if count <= tonumber(ARGV[7]) and bytes <= tonumber(ARGV[8]) and not is_old then break end
  count = count - 1
  bytes = bytes - #fields[4]
  redis.call('XTRIM', KEYS[3], 'MAXLEN', count)
end
while sound_bytes > tonumber(ARGV[9]) do
  local entry = oldest(KEYS[4])
  sound_bytes = sound_bytes - #entry[2][2]
  redis.call('XDEL', KEYS[4], entry[1])
end
redis.call('HSET', KEYS[5], 'last', last, 'bytes', bytes, 'sound_bytes', sound_bytes)
for i = 3, 5 do redis.call('PEXPIRE', KEYS[i], ARGV[10]) end
return {1, version}
"""
)
# event id, limit, lifetime_ms -> the last id, then id, event, sound, and how long that was, of each that follows
_AFTER: Final = Script(
    NOW_MS
    + """
local found = {tonumber(redis.call('HGET', KEYS[5], 'last') or 0)}
local from = tonumber(ARGV[1]) + 1
local oldest_ms = now_ms - tonumber(ARGV[3])
local most = tonumber(ARGV[2]) * 4
while #found <= most do
  local entries = redis.call('XRANGE', KEYS[3], string.format('%d-0', from), '+', 'COUNT', ARGV[2])
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    from = tonumber(string.match(entry[1], '%d+')) + 1
    local fields = entry[2]
    if tonumber(fields[2]) > oldest_ms and #found <= most then
      local sound = ''
      if fields[6] ~= '0' then
        local kept = redis.call('XRANGE', KEYS[4], entry[1], entry[1])[1]
        sound = kept and kept[2][2] or ''
      end
      for _, told in ipairs({from - 1, fields[4], sound, tonumber(fields[6])}) do found[#found + 1] = told end
    end
  end
end
return found
"""
)

_Keys = tuple[str, str, str, str, str]


class RedisEventLog:
    def __init__(self, storage: Storage, settings: SessionSettings) -> None:
        self._storage, self._settings = storage, settings
        self._conversation_ms = round(settings.conversation_seconds * 1e3)
        self._lifetime_ms = round(settings.event_seconds * 1e3)

    async def keep(
        self, tenant: str, conversation_id: str, version: int, events: Sequence[LoggedEvent], told: Conversation | None
    ) -> int:
        settings = self._settings
        require_events_fit(events, settings)
        packed = packed_within_bounds(told, settings) if told is not None else b""
        entries = [part for event in events for part in (event.id, event.data, event.sound or b"")]
        arguments: tuple[Argument, ...] = (
            conversation_id,
            self._conversation_ms,
            uuid.uuid4().bytes,
            packed,
            version,
            settings.conversation_count,
            settings.event_count,
            settings.event_bytes,
            settings.event_sound_bytes,
            self._lifetime_ms,
            *entries,
        )
        moved = len(packed) + sum(len(event.data) + len(event.sound or b"") for event in events)
        reply = await self._storage.run(_KEEP, _keys(tenant, conversation_id), arguments, moved_bytes=moved)
        return self._version(version, is_saved=told is not None, reply=reply)

    async def after(self, tenant: str, conversation_id: str, event_id: int, limit: int) -> EventPage:
        size = self._settings.event_bytes + self._settings.event_sound_bytes
        arguments = (event_id, limit, self._lifetime_ms)
        reply = await self._storage.run(_AFTER, _keys(tenant, conversation_id), arguments, moved_bytes=size)
        return _page(event_id, reply)

    def _version(self, expected: int, *, is_saved: bool, reply: Reply) -> int:
        outcome, version = map(integer, array(reply))
        if outcome == 1:
            return version
        if outcome == -1:
            raise too_many(self._settings)
        if not version or (not expected and not is_saved):
            raise unknown_conversation()
        raise saved_by_another(expected, version) if expected else id_taken()


def _page(event_id: int, reply: Reply) -> EventPage:
    last_id, *following = array(reply)
    entries = zip(*(following[field::4] for field in range(4)), strict=True)
    events = tuple(
        LoggedEvent(integer(number), data(event), data(sound) if len(data(sound)) == integer(size) else None)
        for number, event, sound, size in entries
    )
    return page_after(event_id, integer(last_id), events)


def _keys(tenant: str, conversation_id: str) -> _Keys:
    return (
        key_of(tenant, "conversation", conversation_id),
        key_of(tenant, "conversations"),
        key_of(tenant, "events", conversation_id),
        key_of(tenant, "event-sounds", conversation_id),
        key_of(tenant, "events-sums", conversation_id),
    )
