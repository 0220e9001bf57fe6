"""The registry that all gateways share. Keys are found before their tenant is known, so all of it lies on one node."""

from collections.abc import Sequence
from typing import Final, cast

from antiphon.storage.connection import Argument, Storage
from antiphon.storage.keys import key_of
from antiphon.storage.scripts import Script
from antiphon.tenancy.records import AuditEntry, KeyRecord, TenantRecord
from antiphon.tenancy.registry import Change, Found, changed_meanwhile
from antiphon.tenancy.streams import ENTRY, read_entries

_KEYS: Final = key_of("keys", "records")
_TENANTS: Final = key_of("keys", "tenants")
_AUDIT: Final = key_of("keys", "audit")

# KEYS: keys by digest, tenants by id. ARGV: a digest.
_FIND: Final = Script(
    """
local key = redis.call('HGET', KEYS[1], ARGV[1])
local tenant = key and redis.call('HGET', KEYS[2], cjson.decode(key).tenant)
return {key, tenant, redis.call('HLEN', KEYS[1])}
"""
)

# KEYS: keys, tenants, audit. ARGV: entry, its field, how many keys, then field, revision and record of each key and
# then of each tenant.
_APPLY: Final = Script(
    """
local function hash_of(at) return (at - 4) / 3 < tonumber(ARGV[3]) and KEYS[1] or KEYS[2] end
for at = 4, #ARGV, 3 do
  local known = redis.call('HGET', hash_of(at), ARGV[at])
  if tonumber(ARGV[at + 1]) ~= (known and cjson.decode(known).revision or 0) + 1 then return 0 end
end
for at = 4, #ARGV, 3 do redis.call('HSET', hash_of(at), ARGV[at], ARGV[at + 2]) end
redis.call('XADD', KEYS[3], '*', ARGV[2], ARGV[1])
return 1
""",
    repeatable=False,
)


class RedisRegistry:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def find(self, digest: str) -> Found:
        reply = await self._storage.run(_FIND, [_KEYS, _TENANTS], [digest])
        key, tenant, count = cast(tuple[bytes | None, bytes | None, int], reply)
        return Found(
            KeyRecord.model_validate_json(key) if key else None,
            TenantRecord.model_validate_json(tenant) if tenant else None,
            count > 0,
        )

    async def all(self) -> tuple[Sequence[TenantRecord], Sequence[KeyRecord]]:
        tenants = cast(list[bytes], await self._storage.execute("HVALS", _TENANTS))
        keys = cast(list[bytes], await self._storage.execute("HVALS", _KEYS))
        found_tenants = [TenantRecord.model_validate_json(text) for text in tenants]
        found_keys = [KeyRecord.model_validate_json(text) for text in keys]
        return sorted(found_tenants, key=lambda tenant: tenant.id), sorted(found_keys, key=lambda key: key.id)

    async def apply(self, change: Change) -> None:
        arguments: list[Argument] = [change.entry.model_dump_json(), ENTRY, len(change.keys)]
        for key in change.keys:
            arguments += [key.digest, key.revision, key.model_dump_json()]
        for tenant in change.tenants:
            arguments += [tenant.id, tenant.revision, tenant.model_dump_json()]
        if not await self._storage.run(_APPLY, [_KEYS, _TENANTS, _AUDIT], arguments):
            raise changed_meanwhile()

    async def audit(self, after: str, count: int) -> Sequence[tuple[str, AuditEntry]]:
        found = await read_entries(self._storage, _AUDIT, f"({after}" if after else "-", "+", count)
        return [(name, AuditEntry.model_validate_json(text)) for name, text in found]
