"""Who makes, changes and takes away keys and tenants: each step is written into the audit log with what it did."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from antiphon.errors import InvalidInput, NotFound
from antiphon.tenancy.api_key import ApiKey, new_api_key
from antiphon.tenancy.records import Action, AuditEntry, KeyRecord, TenantRecord
from antiphon.tenancy.registry import Change, Registry

_ID_BYTES: Final = 8
_UNTOLD: Final = {"digest", "revision"}


@dataclass(frozen=True, slots=True)
class NewKey:
    """The only moment at which a key is there to be shown."""

    record: KeyRecord
    key: ApiKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyWish:
    tenant: str
    label: str = ""
    models: frozenset[str] | None = None
    voices: frozenset[str] | None = None
    is_admin: bool = False
    lasts_seconds: float | None = None


class KeyDesk:
    def __init__(
        self, registry: Registry, pepper: bytes, environment: str, now_seconds: Callable[[], float] = time.time
    ) -> None:
        self._registry, self._pepper, self._environment = registry, pepper, environment
        self._now_seconds = now_seconds

    async def create_tenant(self, tenant: TenantRecord, who: str) -> TenantRecord:
        """Raises Conflict when there is one of this id."""
        entry = self._entry(who, "create", f"tenant/{tenant.id}", None, tenant)
        await self._registry.apply(Change(entry, tenants=[tenant]))
        return tenant

    async def change_tenant(self, tenant: TenantRecord, who: str) -> TenantRecord:
        """Takes the place of the one of the same id. Raises NotFound or Conflict."""
        known = await self.tenant(tenant.id)
        after = tenant.model_copy(update={"revision": known.revision + 1})
        entry = self._entry(who, "update", f"tenant/{tenant.id}", known, after)
        await self._registry.apply(Change(entry, tenants=[after]))
        return after

    async def create_key(self, wish: KeyWish, who: str) -> NewKey:
        """Of a tenant that there is. Raises NotFound."""
        await self.tenant(wish.tenant)
        new = self._new(wish)
        entry = self._entry(who, "create", f"key/{new.record.id}", None, new.record)
        await self._registry.apply(Change(entry, keys=[new.record]))
        return new

    async def rotate(self, key_id: str, overlap_seconds: float, who: str) -> NewKey:
        """A new key that may do the same; the old one holds for so long still. Raises NotFound or InvalidInput."""
        old = await self.key(key_id)
        if old.disabled or old.rotated_to is not None:
            raise InvalidInput(f"The key {key_id} has been revoked or rotated already; create a new one.", param="key")
        lasts = None if old.expires_at is None else old.expires_at - self._now_seconds()
        if lasts is not None and lasts <= 0:
            raise InvalidInput(f"The key {key_id} has expired; create a new one.", param="key")
        new = self._new(KeyWish(old.tenant, old.label, old.models, old.voices, "admin" in old.scopes, lasts))
        ends = self._now_seconds() + overlap_seconds
        after = _next(old, expires_at=min(ends, old.expires_at or ends), rotated_to=new.record.id)
        entry = self._entry(who, "rotate", f"key/{key_id}", old, after)
        await self._registry.apply(Change(entry, keys=[after, new.record]))
        return new

    async def revoke(self, key_id: str, who: str) -> KeyRecord:
        """Raises NotFound."""
        known = await self.key(key_id)
        after = _next(known, disabled=True)
        await self._registry.apply(Change(self._entry(who, "revoke", f"key/{key_id}", known, after), keys=[after]))
        return after

    async def key(self, key_id: str) -> KeyRecord:
        """Raises NotFound."""
        _, keys = await self._registry.all()
        found = next((key for key in keys if key.id == key_id), None)
        if found is None:
            raise NotFound(f"There is no key '{key_id[:64]}'.", param="key", code="key_not_found")
        return found

    async def tenant(self, tenant_id: str) -> TenantRecord:
        """Raises NotFound."""
        tenants, _ = await self._registry.all()
        found = next((tenant for tenant in tenants if tenant.id == tenant_id), None)
        if found is None:
            raise NotFound(f"There is no tenant '{tenant_id[:64]}'.", param="tenant", code="tenant_not_found")
        return found

    def _new(self, wish: KeyWish) -> NewKey:
        if not self._pepper:
            raise InvalidInput(
                "Set ANTIPHON_KEY_PEPPER to a long random text, the same for all gateways, to make keys."
            )
        key, now = new_api_key(self._environment), self._now_seconds()
        record = KeyRecord(
            id=f"key_{secrets.token_hex(_ID_BYTES)}",
            tenant=wish.tenant,
            label=wish.label,
            prefix=key.prefix,
            last_four=key.last_four,
            digest=key.digest(self._pepper),
            models=wish.models,
            voices=wish.voices,
            scopes=frozenset({"admin"} if wish.is_admin else ()),
            created_at=now,
            expires_at=None if wish.lasts_seconds is None else now + wish.lasts_seconds,
        )
        return NewKey(record, key)

    def _entry(
        self,
        who: str,
        action: Action,
        changed: str,
        before: TenantRecord | KeyRecord | None,
        after: TenantRecord | KeyRecord,
    ) -> AuditEntry:
        shown = None if before is None else before.model_dump(mode="json", exclude=_UNTOLD)
        told = after.model_dump(mode="json", exclude=_UNTOLD)
        return AuditEntry(at=self._now_seconds(), who=who, action=action, changed=changed, before=shown, after=told)


def _next(record: KeyRecord, **changes: object) -> KeyRecord:
    return record.model_copy(update={"revision": record.revision + 1, **changes})
