"""The registry of one process, for tests and for a platform that is one process."""

from collections.abc import Sequence

from antiphon.tenancy.records import AuditEntry, KeyRecord, TenantRecord
from antiphon.tenancy.registry import Change, Found, changed_meanwhile


class MemoryRegistry:
    def __init__(self) -> None:
        self._tenants: dict[str, TenantRecord] = {}
        self._keys: dict[str, KeyRecord] = {}
        self._audit: list[AuditEntry] = []

    async def find(self, digest: str) -> Found:
        key = self._keys.get(digest)
        return Found(key, self._tenants.get(key.tenant) if key else None, bool(self._keys))

    async def all(self) -> tuple[Sequence[TenantRecord], Sequence[KeyRecord]]:
        tenants = sorted(self._tenants.values(), key=lambda tenant: tenant.id)
        return tenants, sorted(self._keys.values(), key=lambda key: key.id)

    async def apply(self, change: Change) -> None:
        for key in change.keys:
            _require_next(key, self._keys.get(key.digest))
        for tenant in change.tenants:
            _require_next(tenant, self._tenants.get(tenant.id))
        self._keys.update({key.digest: key for key in change.keys})
        self._tenants.update({tenant.id: tenant for tenant in change.tenants})
        self._audit.append(change.entry)

    async def audit(self, after: str, count: int) -> Sequence[tuple[str, AuditEntry]]:
        start = int(after) if after.isdecimal() else 0
        return [(str(start + at + 1), entry) for at, entry in enumerate(self._audit[start : start + count])]


def _require_next(record: KeyRecord | TenantRecord, known: KeyRecord | TenantRecord | None) -> None:
    if record.revision != (known.revision if known else 0) + 1:
        raise changed_meanwhile()
