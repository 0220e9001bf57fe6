"""The records of all gateways: for each tenant a sorted set by when requests finished, which counts each id once.

A record's text is its own member, so sending it again changes nothing. What is older than the retention goes when
something newer comes, and all of it where nothing newer comes for so long.
"""

from collections.abc import Sequence
from typing import Final, cast

from antiphon.storage.connection import Argument, Storage
from antiphon.storage.keys import key_of
from antiphon.storage.scripts import Script
from antiphon.tenancy.usage_log import UsageRecord

_TENANTS: Final = key_of("keys", "metered")
_DAY_SECONDS: Final = 86_400.0

# KEYS: records. ARGV: record, when it finished, what is too old, how long all of them are kept in ms.
_APPEND: Final = Script(
    """
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 0
"""
)


class RedisUsageLog:
    def __init__(self, storage: Storage, retention_days: float) -> None:
        self._storage, self._retention_seconds = storage, retention_days * _DAY_SECONDS
        # Whom this gateway has told of already.
        self._told: set[str] = set()

    async def append(self, record: UsageRecord) -> None:
        oldest = record.finished_at - self._retention_seconds
        arguments: list[Argument] = [
            record.model_dump_json(),
            repr(record.finished_at),
            repr(oldest),
            round(self._retention_seconds * 1e3),
        ]
        await self._storage.run(_APPEND, [_records_key(record.tenant)], arguments)
        if record.tenant not in self._told:
            await self._storage.execute("SADD", _TENANTS, record.tenant)
            self._told.add(record.tenant)

    async def read(self, tenant: str, since: float, until: float, count: int) -> Sequence[UsageRecord]:
        window = (repr(since), f"({until!r}")
        reply = await self._storage.execute("ZRANGEBYSCORE", _records_key(tenant), *window, "LIMIT", 0, count)
        return [UsageRecord.model_validate_json(text) for text in cast(list[bytes], reply)]

    async def tenants(self) -> Sequence[str]:
        reply = await self._storage.execute("SMEMBERS", _TENANTS)
        return sorted(name.decode() for name in cast(set[bytes], reply))


def _records_key(tenant: str) -> str:
    return key_of(tenant, "usage")
