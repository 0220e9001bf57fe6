"""Everything that tenants need, in Redis or in this process."""

from dataclasses import dataclass, field
from typing import Final

from antiphon.errors import InvalidInput
from antiphon.storage.connection import Storage
from antiphon.tenancy.client_secrets import ClientSecrets, MemoryClientSecrets
from antiphon.tenancy.identity import Identities
from antiphon.tenancy.key_desk import KeyDesk
from antiphon.tenancy.limiter import Limiter
from antiphon.tenancy.memory_limiter import MemoryLimiter
from antiphon.tenancy.memory_registry import MemoryRegistry
from antiphon.tenancy.redis_client_secrets import RedisClientSecrets
from antiphon.tenancy.redis_limiter import RedisLimiter
from antiphon.tenancy.redis_registry import RedisRegistry
from antiphon.tenancy.redis_replies import RedisReplies
from antiphon.tenancy.redis_usage_log import RedisUsageLog
from antiphon.tenancy.registry import Registry
from antiphon.tenancy.replies import MemoryReplies, Replies
from antiphon.tenancy.settings import TenancySettings
from antiphon.tenancy.usage_log import MemoryUsageLog, UsageLog

_RECORDS_IN_MEMORY: Final = 10_000
_REPLIES_IN_MEMORY: Final = 100
_SECRETS_IN_MEMORY: Final = 100_000


@dataclass(frozen=True, slots=True)
class Tenancy:
    settings: TenancySettings
    registry: Registry = field(repr=False)
    limiter: Limiter = field(repr=False)
    usage: UsageLog = field(repr=False)
    replies: Replies = field(repr=False)
    secrets: ClientSecrets = field(repr=False)

    def identities(self) -> Identities:
        return Identities(self.registry, self.settings)

    def desk(self) -> KeyDesk:
        pepper = self.settings.key_pepper.get_secret_value().encode()
        return KeyDesk(self.registry, pepper, self.settings.key_environment)


def open_tenancy(storage: Storage | None, settings: TenancySettings) -> Tenancy:
    """In this process where there is no storage. The storage stays the caller's, who closes it.

    Raises InvalidInput where keys are required that nobody could have made.
    """
    if storage is not None:
        return Tenancy(
            settings,
            RedisRegistry(storage),
            RedisLimiter(storage, settings.place_lease_seconds),
            RedisUsageLog(storage, settings.usage_retention_days),
            RedisReplies(storage, settings.idempotency_seconds, settings.idempotency_tenant_bytes),
            RedisClientSecrets(storage),
        )
    if settings.require_keys:
        raise InvalidInput("ANTIPHON_REQUIRE_KEYS is set, but not where keys are kept: set ANTIPHON_REDIS_URL, too.")
    return tenancy_in_memory(settings)


def tenancy_in_memory(settings: TenancySettings) -> Tenancy:
    limiter = MemoryLimiter(settings.place_lease_seconds)
    replies = MemoryReplies(settings.idempotency_seconds, settings.idempotency_tenant_bytes, _REPLIES_IN_MEMORY)
    secrets = MemoryClientSecrets(_SECRETS_IN_MEMORY)
    return Tenancy(settings, MemoryRegistry(), limiter, MemoryUsageLog(_RECORDS_IN_MEMORY), replies, secrets)
