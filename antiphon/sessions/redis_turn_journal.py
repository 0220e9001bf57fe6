"""Running turns in Redis: a hash of what does not change and who may write, ids and frames as growing strings; and
what all of a tenant's take together."""

import uuid
from typing import Final

from antiphon.errors import InternalError
from antiphon.sessions.progress import Progress, pack_frames, pack_ids, unpack_frames, unpack_ids
from antiphon.sessions.settings import SessionSettings
from antiphon.sessions.turn_journal import (
    Charged,
    JournalledTurn,
    TurnWriter,
    journals_full,
    progress_too_large,
    require_record_fits,
    taken_over,
    turn_begun,
    unknown_turn,
)
from antiphon.storage.connection import Reply, Storage
from antiphon.storage.keys import key_of
from antiphon.storage.replies import array, data, integer
from antiphon.storage.scripts import NOW_MS, Script

# Keys of all: the turn, its ids, its frames; of its tenant, turns by expiry and their sizes, whose sum is the field ''.
# lifetime_ms and the turn's id are the first arguments of all that write. What expired is counted no more.
_USE: Final = (
    NOW_MS
    + """
local function forget(id)
  local size = redis.call('HGET', KEYS[5], id)
  if size then redis.call('HINCRBY', KEYS[5], '', -size) end
  redis.call('HDEL', KEYS[5], id)
  redis.call('ZREM', KEYS[4], id)
end
local function has_room(more, most)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now_ms)) do forget(id) end
  return tonumber(redis.call('HGET', KEYS[5], '') or 0) + more <= tonumber(most)
end
local function grow(more)
  redis.call('HINCRBY', KEYS[5], ARGV[2], more)
  redis.call('HINCRBY', KEYS[5], '', more)
end
local function use()
  redis.call('ZADD', KEYS[4], now_ms + ARGV[1], ARGV[2])
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end
end
"""
)
# token, record, most bytes of the tenant -> 1 begun, 0 in use, -4 no room
_BEGIN: Final = Script(
    _USE
    + """
local token = redis.call('HGET', KEYS[1], 'token')
if token then return token == ARGV[3] and 1 or 0 end
forget(ARGV[2])
if not has_room(#ARGV[4], ARGV[5]) then return -4 end
redis.call('HSET', KEYS[1], 'token', ARGV[3], 'record', ARGV[4], 'fence', 1)
grow(#ARGV[4])
use()
return 1
"""
)
_FENCED: Final = (
    _USE
    + """
local fence = redis.call('HGET', KEYS[1], 'fence')
if not fence then return 0 end
if fence ~= ARGV[3] then return -1 end
"""
)
# fence, where ids begin, ids, where frames begin, frames, most bytes, most bytes of the tenant
# -> 1 written, 0 unknown, -1 another's, -2 too large, -3 a gap, -4 no room.
# What is there already is not written twice: a writer's second try begins where its first began.
_APPEND: Final = Script(
    _FENCED
    + """
if ARGV[4] + #ARGV[5] + ARGV[6] + #ARGV[7] > tonumber(ARGV[8]) then return -2 end
local function new(key, start, data)
  local known = redis.call('STRLEN', key) - start
  return known >= 0 and string.sub(data, known + 1)
end
local ids, frames = new(KEYS[2], ARGV[4], ARGV[5]), new(KEYS[3], ARGV[6], ARGV[7])
if not ids or not frames then return -3 end
if #ids + #frames > 0 then
  if not has_room(#ids + #frames, ARGV[9]) then return -4 end
  if #ids > 0 then redis.call('APPEND', KEYS[2], ids) end
  if #frames > 0 then redis.call('APPEND', KEYS[3], frames) end
  grow(#ids + #frames)
end
use()
return 1
"""
)
# fence -> as above
_FINISH: Final = Script(_FENCED + "redis.call('HSET', KEYS[1], 'finished', 1)\nuse()\nreturn 1")
# fence, ids, frames, samples -> as above
_CHARGE: Final = Script(
    _FENCED
    + """
redis.call('HSET', KEYS[1], 'charged', ARGV[4] .. ' ' .. ARGV[5] .. ' ' .. ARGV[6])
use()
return 1
"""
)
# fence -> as above. Once more finds it unknown.
_DROP: Final = Script(_FENCED + "redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])\nforget(ARGV[2])\nreturn 1")
_READ_ALL: Final = """
local turn = redis.call('HMGET', KEYS[1], 'record', 'finished', 'fence', 'charged')
local ids, frames = redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3])
return {turn[1], turn[2] and 1 or 0, tonumber(turn[3]), ids or '', frames or '', turn[4] or ''}
"""
# -> record, whether finished, fence, ids, frames, what is charged; nothing where there is none
_READ: Final = Script("if redis.call('EXISTS', KEYS[1]) == 0 then return {} end\n" + _READ_ALL)
# -> -1 where there is none
_SIZE: Final = Script(
    """
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
return redis.call('HSTRLEN', KEYS[1], 'record') + redis.call('STRLEN', KEYS[2]) + redis.call('STRLEN', KEYS[3])
"""
)
# -> as _READ. Once more takes it over once more: only the last fence is told, and holds.
_TAKE_OVER: Final = Script(
    _USE
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
redis.call('HINCRBY', KEYS[1], 'fence', 1)
use()
"""
    + _READ_ALL
)

_Keys = tuple[str, str, str, str, str]


class RedisTurnJournal:
    def __init__(self, storage: Storage, settings: SessionSettings) -> None:
        self._storage, self._settings = storage, settings
        self._lifetime_ms = round(settings.turn_seconds * 1e3)

    async def begin(self, tenant: str, turn_id: str, record: bytes) -> TurnWriter:
        require_record_fits(record, self._settings)
        keys = _keys(tenant, turn_id)
        arguments = (self._lifetime_ms, turn_id, uuid.uuid4().bytes, record, self._settings.turn_journal_bytes)
        outcome = integer(await self._storage.run(_BEGIN, keys, arguments, moved_bytes=len(record)))
        if outcome == 0:
            raise turn_begun()
        if outcome < 0:
            raise journals_full(self._settings)
        return _RedisTurnWriter(self._storage, self._settings, turn_id, keys, fence=1, written=Progress())

    async def size_bytes(self, tenant: str, turn_id: str) -> int:
        size = integer(await self._storage.run(_SIZE, _keys(tenant, turn_id)))
        if size < 0:
            raise unknown_turn()
        return size

    async def read(self, tenant: str, turn_id: str) -> JournalledTurn:
        found = await self._storage.run(_READ, _keys(tenant, turn_id), moved_bytes=self._largest_bytes)
        return _turn(found)[0]

    async def take_over(self, tenant: str, turn_id: str) -> tuple[JournalledTurn, TurnWriter]:
        keys = _keys(tenant, turn_id)
        found = await self._storage.run(_TAKE_OVER, keys, (self._lifetime_ms, turn_id), moved_bytes=self._largest_bytes)
        turn, fence = _turn(found)
        return turn, _RedisTurnWriter(self._storage, self._settings, turn_id, keys, fence, turn.progress)

    @property
    def _largest_bytes(self) -> int:
        return self._settings.turn_record_bytes + self._settings.turn_progress_bytes


class _RedisTurnWriter:
    def __init__(
        self,
        storage: Storage,
        settings: SessionSettings,
        turn_id: str,
        keys: _Keys,
        fence: int,
        written: Progress,
    ) -> None:
        self._storage, self._settings, self._keys = storage, settings, keys
        # What every script is told first.
        self._about = (round(settings.turn_seconds * 1e3), turn_id, fence)
        self._ids_bytes = len(pack_ids(written.token_ids))
        self._frames_bytes = len(pack_frames(written.frames))

    async def append(self, progress: Progress) -> None:
        ids, frames = pack_ids(progress.token_ids), pack_frames(progress.frames)
        bounds = (self._settings.turn_progress_bytes, self._settings.turn_journal_bytes)
        outcome = await self._run(_APPEND, self._ids_bytes, ids, self._frames_bytes, frames, *bounds)
        if outcome == -2:
            raise progress_too_large(self._ids_bytes + self._frames_bytes + len(ids) + len(frames), self._settings)
        if outcome == -4:
            raise journals_full(self._settings)
        _require_written(outcome)
        self._ids_bytes += len(ids)
        self._frames_bytes += len(frames)

    async def finish(self) -> None:
        _require_written(await self._run(_FINISH))

    async def charge(self, charged: Charged) -> None:
        _require_written(await self._run(_CHARGE, charged.token_ids, charged.frames, charged.samples))

    async def drop(self) -> None:
        _require_written(await self._run(_DROP))

    async def _run(self, script: Script, *arguments: int | bytes) -> int:
        return integer(await self._storage.run(script, self._keys, (*self._about, *arguments)))


def _require_written(outcome: int) -> None:
    if outcome == 0:
        raise unknown_turn()
    if outcome == -1:
        raise taken_over()
    if outcome < 0:
        raise InternalError("The journal of a turn lacks what was written before: Redis lost it. The turn goes on.")


def _turn(reply: Reply) -> tuple[JournalledTurn, int]:
    """And its fence."""
    found = array(reply)
    if not found:
        raise unknown_turn()
    record, is_finished, fence, ids, frames, charged = found
    progress = Progress(unpack_ids(data(ids)), unpack_frames(data(frames)))
    turn = JournalledTurn(data(record), progress, bool(is_finished), _charged(data(charged)))
    return turn, integer(fence)


def _charged(written: bytes) -> Charged | None:
    return Charged(*map(int, written.split())) if written else None


def _keys(tenant: str, turn_id: str) -> _Keys:
    own = key_of(tenant, "turn", turn_id), key_of(tenant, "turn-ids", turn_id), key_of(tenant, "turn-frames", turn_id)
    return *own, key_of(tenant, "turns"), key_of(tenant, "turn-sizes")
