"""On whose behalf: every span of a turn says it, whatever the client claims; metrics name few tenants."""

import secrets
from pathlib import Path

from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.span_records import SpanRing
from antiphon.tenancy.caller import TenantLimits
from antiphon.tenancy.opening import tenancy_in_memory
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, listening, over_grpc, spoken
from tests.gateway.tenants.conftest import CHAT, SETTINGS, TenantGateway


async def test_every_span_of_a_turn_names_its_tenant(settings: GatewaySettings, fakes: Fakes, tmp_path: Path) -> None:
    """Across gRPC, and though the client's own baggage names another."""
    ring, trace_id = SpanRing(), secrets.token_hex(16)
    traced = tracing.configure("antiphon", ring)
    tenancy = tenancy_in_memory(SETTINGS)
    async with over_grpc(fakes, tmp_path) as caller:
        app = create_app(settings, caller.stages(), metrics=Metrics(), tenancy=tenancy)
        async with listening(app) as url:
            gateway = TenantGateway(app, tenancy, url)
            sent = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01", "baggage": "antiphon.tenant=beta"}
            async with gateway.client(await gateway.enrol("acme")) as client:
                assert (await client.post(CHAT, json=spoken(), headers=sent)).status_code == 200
    traced.close()
    spans = ring.spans(trace_id)
    assert len(spans) > 6
    assert {span.attributes.get(names.TENANT) for span in spans} == {"acme"}


async def test_metrics_name_the_first_tenants_only(settings: GatewaySettings, fakes: Fakes) -> None:
    metrics = Metrics()
    tenancy = tenancy_in_memory(SETTINGS.model_copy(update={"named_tenants": 2}))
    app = create_app(settings, fakes.stages(), metrics=metrics, tenancy=tenancy)
    async with listening(app) as url:
        gateway = TenantGateway(app, tenancy, url)
        tokens = {}
        for tenant in ("acme", "beta", "gamma", "delta"):
            async with gateway.client(await gateway.enrol(tenant, TenantLimits(requests_per_minute=1))) as client:
                answer = await client.post(CHAT, json=spoken())
                tokens[tenant] = answer.json()["usage"]["total_tokens"]
                assert (await client.post(CHAT, json=spoken())).status_code == 429
        text = metrics.exposition().decode()

    def total(tenant: str) -> float:
        found = [
            metrics.registry.get_sample_value(
                f"{names.METRIC_TENANT_TOKENS}_total", {"tenant": tenant, "direction": direction}
            )
            for direction in ("input", "output")
        ]
        return sum(value or 0 for value in found)

    assert [total(tenant) for tenant in ("acme", "beta")] == [tokens["acme"], tokens["beta"]]
    assert total("other") == tokens["gamma"] + tokens["delta"]
    assert f'{names.METRIC_TENANT_REFUSED}_total{{tenant="other"}} 2.0' in text
    assert "gamma" not in text


def test_stages_name_the_first_tenants_only() -> None:
    metrics = Metrics()
    metrics.tenants.name_at_most(2)
    for tenant in ("acme", "beta", "gamma", "delta", "acme", ""):
        metrics.tenants.count_call(tenant, "thinker", 0.5)

    def counted(name: str, tenant: str) -> float | None:
        return metrics.registry.get_sample_value(f"{name}_total", {"tenant": tenant, "stage": "thinker"})

    calls = {
        tenant: counted(names.METRIC_TENANT_STAGE_CALLS, tenant) for tenant in ("acme", "beta", "other", "gamma", "")
    }
    assert calls == {"acme": 2, "beta": 1, "other": 2, "gamma": None, "": 1}
    assert counted(names.METRIC_TENANT_STAGE_SECONDS, "other") == 1.0
