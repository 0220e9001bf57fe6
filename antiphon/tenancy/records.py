"""What is kept about tenants and keys, and who changed it; as JSON in the registry and in the admin API."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_serializer

from antiphon.tenancy.caller import Priority, TenantLimits

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")]
Names = Annotated[frozenset[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=256)]
# As far apart as the stages take them.
Weight = Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)]
Scope = Literal["admin"]
Action = Literal["create", "update", "rotate", "revoke"]


class _Record(BaseModel):
    # What a newer gateway has written besides is none of ours.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Versioned(_Record):
    # Counts changes: who changes what is no longer what he saw gets a Conflict.
    revision: int = 1

    @field_serializer("models", "voices", "scopes", check_fields=False)
    def _in_order(self, names: frozenset[str] | None) -> list[str] | None:
        return None if names is None else sorted(names)


class TenantRecord(_Versioned):
    id: Name
    limits: TenantLimits = TenantLimits()
    # Its share of steps beside other tenants.
    weight: Weight = 1.0
    priority: Priority = "interactive"
    # Null allows all.
    models: Names | None = None
    voices: Names | None = None
    disabled: bool = False


class KeyRecord(_Versioned):
    id: str
    tenant: Name
    label: str = Field(default="", max_length=128)
    # What may be shown of the key.
    prefix: str
    last_four: str
    # HMAC-SHA256 of the key, in hex; never shown.
    digest: str = Field(repr=False)
    # Narrows the tenant's; null leaves them.
    models: Names | None = None
    voices: Names | None = None
    scopes: frozenset[Scope] = frozenset()
    # Seconds since the epoch.
    created_at: float
    expires_at: float | None = None
    disabled: bool = False
    # Of the key that took its place.
    rotated_to: str | None = None


class AuditEntry(_Record):
    """Written in one step with what it tells of, and never changed."""

    # Seconds since the epoch.
    at: float
    # Id of an admin key, or the command line.
    who: str
    action: Action
    # Such as "key/key_1f…" or "tenant/acme".
    changed: str
    # Without digests; null before there was one.
    before: dict[str, JsonValue] | None
    after: dict[str, JsonValue]
