"""Running turns in Redis: a hash of what does not change and who may write, ids and frames as growing strings."""

import uuid
from typing import Final

from antiphon.errors import InternalError
from antiphon.sessions.progress import Progress, pack_frames, pack_ids, unpack_frames, unpack_ids
from antiphon.sessions.settings import SessionSettings
from antiphon.sessions.turn_journal import (
    Charged,
    JournalledTurn,
    TurnWriter,
    progress_too_large,
    require_record_fits,
    taken_over,
    turn_begun,
    unknown_turn,
)
from antiphon.storage.connection import Reply, Storage
from antiphon.storage.keys import key_of
from antiphon.storage.replies import array, data, integer
from antiphon.storage.scripts import Script

# Keys of all: the turn, its ids, its frames. lifetime_ms is the first argument of those that begin it anew.
_EXPIRE: Final = "for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[1]) end\n"
# lifetime_ms, token, record -> whether it began
_BEGIN: Final = Script(
    """
local token = redis.call('HGET', KEYS[1], 'token')
if token then return token == ARGV[2] and 1 or 0 end
redis.call('HSET', KEYS[1], 'token', ARGV[2], 'record', ARGV[3], 'fence', 1)
"""
    + _EXPIRE
    + "return 1"
)
# lifetime_ms, fence, where ids begin, ids, where frames begin, frames, most bytes
# -> 1 written, 0 unknown, -1 another's, -2 too large, -3 a gap.
# What is there already is not written twice: a writer's second try begins where its first began.
_APPEND: Final = Script(
    """
local fence = redis.call('HGET', KEYS[1], 'fence')
if not fence then return 0 end
if fence ~= ARGV[2] then return -1 end
if ARGV[3] + #ARGV[4] + ARGV[5] + #ARGV[6] > tonumber(ARGV[7]) then return -2 end
local function add(key, start, data)
  local known = redis.call('STRLEN', key) - start
  if known < 0 then return false end
  if known < #data then redis.call('APPEND', key, string.sub(data, known + 1)) end
  return true
end
if not add(KEYS[2], tonumber(ARGV[3]), ARGV[4]) then return -3 end
if not add(KEYS[3], tonumber(ARGV[5]), ARGV[6]) then return -3 end
"""
    + _EXPIRE
    + "return 1"
)
# lifetime_ms, fence -> as above
_FINISH: Final = Script(
    """
local fence = redis.call('HGET', KEYS[1], 'fence')
if not fence then return 0 end
if fence ~= ARGV[2] then return -1 end
redis.call('HSET', KEYS[1], 'finished', 1)
"""
    + _EXPIRE
    + "return 1"
)
# lifetime_ms, fence, ids, frames, samples -> as above
_CHARGE: Final = Script(
    """
local fence = redis.call('HGET', KEYS[1], 'fence')
if not fence then return 0 end
if fence ~= ARGV[2] then return -1 end
redis.call('HSET', KEYS[1], 'charged', ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. ARGV[5])
"""
    + _EXPIRE
    + "return 1"
)
# fence -> as above. Once more finds it unknown.
_DROP: Final = Script(
    """
local fence = redis.call('HGET', KEYS[1], 'fence')
if not fence then return 0 end
if fence ~= ARGV[1] then return -1 end
for _, key in ipairs(KEYS) do redis.call('DEL', key) end
return 1
"""
)
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
# lifetime_ms -> as above. Once more takes it over once more: only the last fence is told, and holds.
_TAKE_OVER: Final = Script(
    "if redis.call('EXISTS', KEYS[1]) == 0 then return {} end\nredis.call('HINCRBY', KEYS[1], 'fence', 1)\n"
    + _EXPIRE
    + _READ_ALL
)

_Keys = tuple[str, str, str]


class RedisTurnJournal:
    def __init__(self, storage: Storage, settings: SessionSettings) -> None:
        self._storage, self._settings = storage, settings
        self._lifetime_ms = round(settings.turn_seconds * 1e3)

    async def begin(self, tenant: str, turn_id: str, record: bytes) -> TurnWriter:
        require_record_fits(record, self._settings)
        keys = _keys(tenant, turn_id)
        arguments = (self._lifetime_ms, uuid.uuid4().bytes, record)
        if not integer(await self._storage.run(_BEGIN, keys, arguments, moved_bytes=len(record))):
            raise turn_begun()
        return _RedisTurnWriter(self._storage, self._settings, keys, fence=1, written=Progress())

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
        found = await self._storage.run(_TAKE_OVER, keys, (self._lifetime_ms,), moved_bytes=self._largest_bytes)
        turn, fence = _turn(found)
        return turn, _RedisTurnWriter(self._storage, self._settings, keys, fence, turn.progress)

    @property
    def _largest_bytes(self) -> int:
        return self._settings.turn_record_bytes + self._settings.turn_progress_bytes


class _RedisTurnWriter:
    def __init__(self, storage: Storage, settings: SessionSettings, keys: _Keys, fence: int, written: Progress) -> None:
        self._storage, self._settings, self._keys, self._fence = storage, settings, keys, fence
        self._lifetime_ms = round(settings.turn_seconds * 1e3)
        self._ids_bytes = len(pack_ids(written.token_ids))
        self._frames_bytes = len(pack_frames(written.frames))

    async def append(self, progress: Progress) -> None:
        ids, frames = pack_ids(progress.token_ids), pack_frames(progress.frames)
        most = self._settings.turn_progress_bytes
        arguments = (self._lifetime_ms, self._fence, self._ids_bytes, ids, self._frames_bytes, frames, most)
        outcome = integer(await self._storage.run(_APPEND, self._keys, arguments))
        if outcome == -2:
            raise progress_too_large(self._ids_bytes + self._frames_bytes + len(ids) + len(frames), self._settings)
        _require_written(outcome)
        self._ids_bytes += len(ids)
        self._frames_bytes += len(frames)

    async def finish(self) -> None:
        arguments = (self._lifetime_ms, self._fence)
        _require_written(integer(await self._storage.run(_FINISH, self._keys, arguments)))

    async def charge(self, charged: Charged) -> None:
        arguments = (self._lifetime_ms, self._fence, charged.token_ids, charged.frames, charged.samples)
        _require_written(integer(await self._storage.run(_CHARGE, self._keys, arguments)))

    async def drop(self) -> None:
        _require_written(integer(await self._storage.run(_DROP, self._keys, (self._fence,))))


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
    return key_of(tenant, "turn", turn_id), key_of(tenant, "turn-ids", turn_id), key_of(tenant, "turn-frames", turn_id)
