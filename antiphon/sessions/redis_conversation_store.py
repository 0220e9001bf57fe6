"""Conversations in Redis: a hash each, saved by compare-and-set, and a tenant's list of them by expiry."""

import uuid
from typing import Final

from antiphon.sessions.conversation import Conversation
from antiphon.sessions.conversation_format import unpack_conversation
from antiphon.sessions.conversation_store import (
    StoredConversation,
    id_taken,
    packed_within_bounds,
    saved_by_another,
    too_many,
    unknown_conversation,
)
from antiphon.sessions.settings import SessionSettings
from antiphon.storage.connection import Storage
from antiphon.storage.keys import key_of
from antiphon.storage.replies import array, data, integer
from antiphon.storage.scripts import NOW_MS, Script

# Keys of all: the conversation, the tenant's list. A write carries a token of its own, by which it knows itself when it
# comes twice.
USE_CONVERSATION: Final = """
local function use(id, lifetime_ms)
  redis.call('PEXPIRE', KEYS[1], lifetime_ms)
  redis.call('ZADD', KEYS[2], now_ms + lifetime_ms, id)
  redis.call('PEXPIRE', KEYS[2], lifetime_ms)
end
"""
# id, lifetime_ms, token, data, most of a tenant -> version, 0 for an id in use, -1 for one too many
_CREATE: Final = Script(
    NOW_MS
    + USE_CONVERSATION
    + """
local token = redis.call('HGET', KEYS[1], 'token')
if token then return token == ARGV[3] and 1 or 0 end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now_ms)
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return -1 end
redis.call('HSET', KEYS[1], 'version', 1, 'token', ARGV[3], 'data', ARGV[4])
use(ARGV[1], ARGV[2])
return 1
"""
)
# id, lifetime_ms -> version and data, or nothing
_LOAD: Final = Script(
    NOW_MS
    + USE_CONVERSATION
    + """
local found = redis.call('HMGET', KEYS[1], 'version', 'data')
if not found[1] then return {} end
use(ARGV[1], ARGV[2])
return {tonumber(found[1]), found[2]}
"""
)
# id, lifetime_ms, token, data, expected version -> whether it was saved, and the version; nothing where there is none
_SAVE: Final = Script(
    NOW_MS
    + USE_CONVERSATION
    + """
local found = redis.call('HMGET', KEYS[1], 'version', 'token')
if not found[1] then return {} end
local version = tonumber(found[1])
if found[2] == ARGV[3] then return {1, version} end
if version ~= tonumber(ARGV[5]) then return {0, version} end
redis.call('HSET', KEYS[1], 'version', version + 1, 'token', ARGV[3], 'data', ARGV[4])
use(ARGV[1], ARGV[2])
return {1, version + 1}
"""
)
# id
_DELETE: Final = Script("redis.call('DEL', KEYS[1]) redis.call('ZREM', KEYS[2], ARGV[1]) return 1")


class RedisConversationStore:
    def __init__(self, storage: Storage, settings: SessionSettings) -> None:
        self._storage, self._settings = storage, settings
        self._lifetime_ms = round(settings.conversation_seconds * 1e3)

    async def create(self, tenant: str, conversation: Conversation) -> int:
        packed = packed_within_bounds(conversation, self._settings)
        arguments = (conversation.id, self._lifetime_ms, _token(), packed, self._settings.conversation_count)
        keys = _keys(tenant, conversation.id)
        version = integer(await self._storage.run(_CREATE, keys, arguments, moved_bytes=len(packed)))
        if version == 0:
            raise id_taken()
        if version < 0:
            raise too_many(self._settings)
        return version

    async def load(self, tenant: str, conversation_id: str) -> StoredConversation:
        arguments = (conversation_id, self._lifetime_ms)
        size = self._settings.conversation_bytes
        found = array(await self._storage.run(_LOAD, _keys(tenant, conversation_id), arguments, moved_bytes=size))
        if not found:
            raise unknown_conversation()
        return StoredConversation(unpack_conversation(data(found[1])), integer(found[0]))

    async def save(self, tenant: str, conversation: Conversation, *, expected_version: int) -> int:
        packed = packed_within_bounds(conversation, self._settings)
        arguments = (conversation.id, self._lifetime_ms, _token(), packed, expected_version)
        keys = _keys(tenant, conversation.id)
        found = array(await self._storage.run(_SAVE, keys, arguments, moved_bytes=len(packed)))
        if not found:
            raise unknown_conversation()
        is_saved, version = map(integer, found)
        if not is_saved:
            raise saved_by_another(expected_version, version)
        return version

    async def delete(self, tenant: str, conversation_id: str) -> None:
        await self._storage.run(_DELETE, _keys(tenant, conversation_id), (conversation_id,))


def _keys(tenant: str, conversation_id: str) -> tuple[str, str]:
    return key_of(tenant, "conversation", conversation_id), key_of(tenant, "conversations")


def _token() -> bytes:
    return uuid.uuid4().bytes
