"""/v1/admin: tenants, their keys and limits, and the log of every change; for keys with the scope "admin"."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import StreamingResponse

from antiphon.tenancy.caller import Caller, Priority, TenantLimits
from antiphon.tenancy.key_desk import KeyDesk, KeyWish, NewKey
from antiphon.tenancy.opening import Tenancy
from antiphon.tenancy.records import AuditEntry, KeyRecord, Names, TenantRecord, Weight
from antiphon.tenancy.usage_log import UsageLog
from antiphon.tenancy.usage_pages import every_record
from services.gateway.tenants import caller_of

_LONGEST_OVERLAP_SECONDS: Final = 90 * 86_400.0
_LONGEST_SECONDS: Final = 100 * 365 * 86_400.0

TenantId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$")]
KeyId = Annotated[str, Path(min_length=1, max_length=64)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LimitsBody(TenantLimits):
    model_config = ConfigDict(extra="forbid")


class TenantBody(_Body):
    limits: LimitsBody = LimitsBody()
    weight: Weight = 1.0
    priority: Priority = "interactive"
    models: Names | None = None
    voices: Names | None = None
    disabled: bool = False


class KeyBody(_Body):
    label: str = Field(default="", max_length=128)
    models: Names | None = None
    voices: Names | None = None
    admin: bool = False
    lasts_seconds: float | None = Field(default=None, gt=0, le=_LONGEST_SECONDS)


class RotationBody(_Body):
    overlap_seconds: float = Field(default=3600.0, ge=0, le=_LONGEST_OVERLAP_SECONDS)


class KeyCard(BaseModel):
    """A key as it may be shown."""

    id: str
    tenant: str
    label: str
    prefix: str
    last_four: str
    models: Names | None
    voices: Names | None
    admin: bool
    created_at: float
    expires_at: float | None
    disabled: bool
    rotated_to: str | None


class NewKeyCard(KeyCard):
    key: str = Field(description="Shown this once.")


class TenantList(BaseModel):
    data: list[TenantRecord]


class KeyList(BaseModel):
    data: list[KeyCard]


class AuditItem(AuditEntry):
    id: str


class AuditPage(BaseModel):
    data: list[AuditItem]


def administrator(request: Request) -> Caller:
    caller = caller_of(request.scope)
    caller.check_admin()
    return caller


Admin = Annotated[Caller, Depends(administrator)]


def admin_router(tenancy: Tenancy) -> APIRouter:
    router = APIRouter(prefix="/v1/admin")
    desk = tenancy.desk()
    _add_tenants(router, tenancy, desk)
    _add_keys(router, tenancy, desk)
    _add_logs(router, tenancy)
    return router


def _add_tenants(router: APIRouter, tenancy: Tenancy, desk: KeyDesk) -> None:
    @router.get("/tenants", summary="All tenants")
    async def list_tenants(_: Admin) -> TenantList:
        return TenantList(data=list((await tenancy.registry.all())[0]))

    @router.get("/tenants/{tenant}", summary="One tenant")
    async def get_tenant(_: Admin, tenant: TenantId) -> TenantRecord:
        return await desk.tenant(tenant)

    @router.post("/tenants/{tenant}", summary="Create a tenant")
    async def create_tenant(admin: Admin, tenant: TenantId, body: TenantBody) -> TenantRecord:
        return await desk.create_tenant(_tenant(tenant, body), admin.key_id)

    @router.put("/tenants/{tenant}", summary="Change all of a tenant: its limits, share, models and voices")
    async def change_tenant(admin: Admin, tenant: TenantId, body: TenantBody) -> TenantRecord:
        return await desk.change_tenant(_tenant(tenant, body), admin.key_id)


def _add_keys(router: APIRouter, tenancy: Tenancy, desk: KeyDesk) -> None:
    @router.get("/keys", summary="All keys, without the keys themselves")
    async def list_keys(_: Admin, tenant: str | None = None) -> KeyList:
        keys = (await tenancy.registry.all())[1]
        return KeyList(data=[_card(key) for key in keys if tenant in (None, key.tenant)])

    @router.post("/tenants/{tenant}/keys", summary="Create a key, which is shown this once")
    async def create_key(admin: Admin, tenant: TenantId, body: KeyBody) -> NewKeyCard:
        wish = KeyWish(tenant, body.label, body.models, body.voices, body.admin, body.lasts_seconds)
        return _new_card(await desk.create_key(wish, admin.key_id))

    @router.post("/keys/{key}/rotate", summary="A new key in the place of one, which holds for a while still")
    async def rotate_key(admin: Admin, key: KeyId, body: RotationBody) -> NewKeyCard:
        return _new_card(await desk.rotate(key, body.overlap_seconds, admin.key_id))

    @router.post("/keys/{key}/revoke", summary="Take a key away for ever")
    async def revoke_key(admin: Admin, key: KeyId) -> KeyCard:
        return _card(await desk.revoke(key, admin.key_id))


def _add_logs(router: APIRouter, tenancy: Tenancy) -> None:
    @router.get("/audit", summary="Who changed what, oldest first")
    async def audit(
        _: Admin,
        after: str = Query("", max_length=64, pattern=r"^(\d+(-\d+)?)?$"),
        limit: int = Query(100, ge=1, le=1000),
    ) -> AuditPage:
        entries = await tenancy.registry.audit(after, limit)
        return AuditPage(data=[AuditItem(id=name, **entry.model_dump()) for name, entry in entries])

    @router.get(
        "/usage",
        summary="Usage records as JSON lines",
        response_class=StreamingResponse,
        responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
    )
    async def usage(
        _: Admin,
        start_time: int = Query(ge=0, le=1 << 40),
        end_time: int = Query(ge=0, le=1 << 40),
        tenant: str | None = None,
    ) -> StreamingResponse:
        tenants = await tenancy.usage.tenants() if tenant is None else [tenant]
        lines = _lines(tenancy.usage, tenants, start_time, end_time)
        return StreamingResponse(lines, media_type="application/x-ndjson")


async def _lines(log: UsageLog, tenants: Sequence[str], since: float, until: float) -> AsyncIterator[bytes]:
    for tenant in tenants:
        async for record in every_record(log, tenant, since, until):
            yield json.dumps(record.model_dump(mode="json")).encode() + b"\n"


def _tenant(name: str, body: TenantBody) -> TenantRecord:
    return TenantRecord(id=name, **body.model_dump())


def _card(key: KeyRecord) -> KeyCard:
    return KeyCard(admin="admin" in key.scopes, **key.model_dump(include=set(KeyCard.model_fields) - {"admin"}))


def _new_card(new: NewKey) -> NewKeyCard:
    return NewKeyCard(key=new.key.secret, **_card(new.record).model_dump())
