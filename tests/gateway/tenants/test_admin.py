"""Administrators enrol tenants and make keys; nobody else may, and every step is in the log."""

import json
import logging

import pytest

from antiphon.telemetry import tracing
from antiphon.telemetry.span_records import SpanRing
from antiphon.tenancy.caller import TenantLimits
from tests.gateway.conftest import body
from tests.gateway.tenants.conftest import CHAT, TenantGateway


@pytest.mark.parametrize("path", ["tenants", "tenants/acme", "keys", "audit", "usage?start_time=0&end_time=9"])
async def test_only_administrators_read(gateway: TenantGateway, path: str) -> None:
    for key in (None, await gateway.enrol("acme")):
        async with gateway.client(key) as client:
            assert (await client.get(f"/v1/admin/{path}")).status_code in (401, 403)


async def test_an_open_platform_has_no_administrators(gateway: TenantGateway) -> None:
    async with gateway.client(None) as client:
        response = await client.post("/v1/admin/tenants/acme", json={})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "admin_required")


async def test_a_tenant_from_its_enrolment_to_its_end(gateway: TenantGateway) -> None:
    root = await gateway.enrol("operators", is_admin=True)
    async with gateway.client(root) as admin:
        made = await admin.post("/v1/admin/tenants/acme", json={"limits": {"requests_per_minute": 1}, "weight": 2})
        assert made.json()["limits"]["requests_per_minute"] == 1
        again = await admin.post("/v1/admin/tenants/acme", json={})
        assert again.status_code == 409
        new = (await admin.post("/v1/admin/tenants/acme/keys", json={"label": "app"})).json()
        assert new["key"].startswith(f"{new['prefix']}")
        assert new["key"].endswith(new["last_four"])
        async with gateway.client(new["key"]) as app:
            assert [(await app.post(CHAT, json=body())).status_code for _ in range(2)] == [200, 429]
            changed = await admin.put("/v1/admin/tenants/acme", json={"limits": {"requests_per_minute": None}})
            assert changed.json()["revision"] == 2
            assert (await app.post(CHAT, json=body())).status_code == 200
            rotated = (await admin.post(f"/v1/admin/keys/{new['id']}/rotate", json={"overlap_seconds": 60})).json()
            assert (await app.post(CHAT, json=body())).status_code == 200
            await admin.post(f"/v1/admin/keys/{new['id']}/revoke")
            assert (await app.post(CHAT, json=body())).status_code == 401
        async with gateway.client(rotated["key"]) as app:
            assert (await app.post(CHAT, json=body())).status_code == 200
        listed = (await admin.get("/v1/admin/keys", params={"tenant": "acme"})).text
        log = (await admin.get("/v1/admin/audit")).json()["data"]
        page = (await admin.get("/v1/admin/audit", params={"limit": 1, "after": log[1]["id"]})).json()["data"]
    assert new["key"] not in listed
    assert "digest" not in listed
    who = json.loads(listed)["data"]
    assert {key["rotated_to"] for key in who} == {None, rotated["id"]}
    changes = [(entry["action"], entry["changed"]) for entry in log]
    assert changes[2:] == [
        ("create", "tenant/acme"),
        ("create", f"key/{new['id']}"),
        ("update", "tenant/acme"),
        ("rotate", f"key/{new['id']}"),
        ("revoke", f"key/{new['id']}"),
    ]
    assert all(entry["who"].startswith("key_") for entry in log[2:])
    assert page == log[2:3]


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("tenants/a%20b", {}),
        ("tenants/acme", {"limits": {"requests_per_minute": -1}}),
        ("tenants/acme", {"limits": {"request_per_minute": 1}}),
        ("tenants/acme", {"weight": 0}),
        ("tenants/acme", {"weight": 0.0009}),
        ("tenants/acme", {"weight": 1000.1}),
        ("tenants/acme", {"limits": {"tokens_per_minute": 10**9 + 1}}),
        ("tenants/acme", {"limits": {"audio_out_seconds_per_minute": 1e6 + 1}}),
        ("tenants/acme/keys", {"lasts_seconds": 0}),
    ],
)
async def test_a_wrong_wish_is_answered_with_a_sentence(gateway: TenantGateway, path: str, sent: object) -> None:
    async with gateway.client(await gateway.enrol("operators", is_admin=True)) as admin:
        response = await admin.post(f"/v1/admin/{path}", json=sent)
    assert response.status_code == 400, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_records_are_exported_as_lines(gateway: TenantGateway) -> None:
    root = await gateway.enrol("operators", is_admin=True)
    for tenant in ("acme", "beta"):
        async with gateway.client(await gateway.enrol(tenant)) as client:
            await client.post(CHAT, json=body())
        await gateway.records(tenant)
    async with gateway.client(root) as admin:
        text = (await admin.get("/v1/admin/usage", params={"start_time": 0, "end_time": 4_000_000_000})).text
    lines = [json.loads(line) for line in text.splitlines()]
    assert sorted(line["tenant"] for line in lines) == ["acme", "beta"]
    assert all(line["prompt_text_tokens"] > 0 for line in lines)


async def test_keys_are_in_no_log_span_or_refusal(gateway: TenantGateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ring = SpanRing()
    traced = tracing.configure("antiphon-gateway", ring)
    root = await gateway.enrol("operators", is_admin=True)
    limited = await gateway.enrol("acme", TenantLimits(requests_per_minute=1))
    wrong = limited[:-1] + "_"
    told = []
    for key in (root, limited, wrong):
        async with gateway.client(key) as client:
            for path in (CHAT, "/v1/admin/tenants/acme/keys", "/v1/nothing"):
                told.append(repr((await client.post(path, json=body())).headers))
            told.append((await client.post(CHAT, json=body())).text)
    told += [repr(record.__dict__) for record in caplog.records if not record.name.startswith(("httpcore", "httpx"))]
    told += [json.dumps([span.name, dict(span.attributes)], default=str) for span in ring.spans()]
    traced.close()
    assert any("antiphon.tenant" in each for each in told)
    for key in (root, limited, wrong):
        assert not any(key.rpartition("-")[2][:43] in each for each in told)
