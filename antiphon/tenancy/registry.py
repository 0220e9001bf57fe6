"""Where tenants and keys are kept: the seam, for both of its forms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from antiphon.errors import Conflict
from antiphon.tenancy.records import AuditEntry, KeyRecord, TenantRecord


@dataclass(frozen=True, slots=True)
class Found:
    """What a digest leads to, read in one step."""

    key: KeyRecord | None
    tenant: TenantRecord | None
    # A platform without any key is open to everybody.
    has_keys: bool


@dataclass(frozen=True, slots=True)
class Change:
    """All of it in one step. Each record's revision is one more than what is there, or 1 where nothing is."""

    entry: AuditEntry
    keys: Sequence[KeyRecord] = ()
    tenants: Sequence[TenantRecord] = ()


class Registry(Protocol):
    """Raises Unavailable where nobody can tell."""

    async def find(self, digest: str) -> Found: ...

    async def all(self) -> tuple[Sequence[TenantRecord], Sequence[KeyRecord]]:
        """In the order of their ids."""
        ...

    async def apply(self, change: Change) -> None:
        """Raises Conflict where a record has another revision by now."""
        ...

    async def audit(self, after: str, count: int) -> Sequence[tuple[str, AuditEntry]]:
        """At most `count` entries that follow the one of this id, oldest first; "" begins with the first."""
        ...


def changed_meanwhile() -> Conflict:
    return Conflict("Somebody else changed it meanwhile. Look at it again.")
