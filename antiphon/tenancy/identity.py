"""From what a client sends as its key to the caller that it is."""

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from antiphon.errors import PermissionDenied, Unauthenticated
from antiphon.tenancy.api_key import ApiKey, read_api_key
from antiphon.tenancy.caller import ANONYMOUS_TENANT, Caller
from antiphon.tenancy.records import KeyRecord, TenantRecord
from antiphon.tenancy.registry import Found, Registry
from antiphon.tenancy.settings import TenancySettings

_SALT_DOMAIN: Final = b"antiphon cache\0"
# Leads to no key, and tells whether there are any.
_NO_DIGEST: Final = ""


class Identities:
    """Remembers for a moment what it read, so that not every request asks the registry."""

    def __init__(
        self,
        registry: Registry,
        settings: TenancySettings,
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._registry, self._settings, self._now_seconds = registry, settings, now_seconds
        self._pepper = settings.key_pepper.get_secret_value().encode()
        # digest -> (until, what was found), oldest first
        self._known: OrderedDict[str, tuple[float, Found]] = OrderedDict()

    async def caller(self, sent: str | None) -> Caller:
        """sent: the key as it came; None without one. Raises Unauthenticated, PermissionDenied or Unavailable."""
        if sent is None:
            found, refusal = await self._find(_NO_DIGEST), _missing()
        else:
            found, refusal = await self._look_up(sent)
        return self._caller_of(found, refusal)

    async def renewed(self, key_digest: str) -> Caller:
        """Whoever came with this key (`Caller.key_digest`), as he is now. Raises as `caller` does."""
        found = await self._find(key_digest)
        if key_digest and found.key is None:
            raise _unknown()
        return self._caller_of(found, _missing())

    def cache_salt(self, tenant: str) -> bytes:
        """The same in every gateway of one pepper, so that a conversation finds its pages again through whichever it
        comes; nobody without it can make the salt of a tenant whose name he knows."""
        return cache_salt(self._pepper, tenant)

    async def _look_up(self, sent: str) -> tuple[Found, Unauthenticated]:
        """Clients that need no key must send one all the same, so what is no key is a fault only where there are."""
        try:
            key: ApiKey = read_api_key(sent)
        except Unauthenticated as error:
            return await self._find(_NO_DIGEST), error
        digest = key.digest(self._pepper)
        found = await self._find(digest)
        if found.key is not None and not hmac.compare_digest(found.key.digest, digest):
            found = Found(None, None, found.has_keys)
        return found, _unknown()

    async def _find(self, digest: str) -> Found:
        now = time.monotonic()
        until, found = self._known.get(digest, (0.0, None))
        if found is not None and now < until:
            return found
        found = await self._registry.find(digest)
        self._known[digest] = (now + self._settings.key_cache_seconds, found)
        self._known.move_to_end(digest)
        while len(self._known) > self._settings.key_cache_count:
            self._known.popitem(last=False)
        return found

    def _caller_of(self, found: Found, refusal: Unauthenticated) -> Caller:
        if found.key is not None:
            return self._caller(found.key, found.tenant)
        if found.has_keys or self._settings.require_keys:
            raise refusal
        return Caller(ANONYMOUS_TENANT, "", self.cache_salt(ANONYMOUS_TENANT))

    def _caller(self, key: KeyRecord, tenant: TenantRecord | None) -> Caller:
        if key.disabled:
            raise Unauthenticated("This API key has been revoked.")
        if key.expires_at is not None and self._now_seconds() >= key.expires_at:
            raise Unauthenticated("This API key has expired.")
        if tenant is None or tenant.disabled:
            raise PermissionDenied("This account is disabled. Ask its administrator.", code="account_deactivated")
        return Caller(
            tenant=tenant.id,
            key_id=key.id,
            cache_salt=self.cache_salt(tenant.id),
            weight=tenant.weight,
            priority=tenant.priority,
            limits=tenant.limits,
            models=_narrowed(tenant.models, key.models),
            voices=_narrowed(tenant.voices, key.voices),
            is_admin="admin" in key.scopes,
            key_digest=key.digest,
        )


def cache_salt(secret: bytes, tenant: str) -> bytes:
    """What the stages computed is shared between requests of one salt: those of one tenant."""
    return hmac.digest(secret, _SALT_DOMAIN + tenant.encode(), "sha256")


def _missing() -> Unauthenticated:
    return Unauthenticated("No API key was sent. Send 'Authorization: Bearer antiphon-…'.")


def _unknown() -> Unauthenticated:
    return Unauthenticated("Incorrect API key: this server does not know it, or no longer.")


def _narrowed(tenant: frozenset[str] | None, key: frozenset[str] | None) -> frozenset[str] | None:
    if tenant is None or key is None:
        return key if tenant is None else tenant
    return tenant & key
