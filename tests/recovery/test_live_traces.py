"""A response of a live session is one trace, whichever replica and whichever gateway goes on with it, and each of its
spans says on whose behalf. The stages are nano's, over gRPC; the spans are those that OpenTelemetry exports."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.storage.connection import open_redis
from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import Metrics, process_metrics
from antiphon.telemetry.names import StageName
from antiphon.tenancy.opening import open_tenancy
from antiphon.wire.clients import StageCaller
from antiphon.wire.directory import StaticDirectory
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from services.hosted import HOSTED_STAGES, hosted_service
from tests.gateway.conftest import listening
from tests.gateway.realtime.live import live
from tests.gateway.realtime.returning import lost_after, rest, returning
from tests.gateway.tenants.conftest import SETTINGS, TenantGateway
from tests.redis_server import PATIENT, RedisServer, running_redis

pytestmark = pytest.mark.slow

AUDIO = "response.output_audio.delta"


@dataclass
class Replicas:
    """Two of every stage; which of them was called last, and the end of each."""

    directory: StaticDirectory
    ends: dict[str, asyncio.Event]
    latest: dict[StageName, str] = field(default_factory=dict)

    async def locate(self, stage: StageName, *, avoiding: Collection[str] = (), affinity: bytes = b"") -> str:
        self.latest[stage] = await self.directory.locate(stage, avoiding=avoiding, affinity=affinity)
        return self.latest[stage]


@asynccontextmanager
async def replicas(nano: Path, folder: Path) -> AsyncIterator[Replicas]:
    ends = {f"unix:{folder}/{name}.sock": asyncio.Event() for name in ("one", "other")}
    begun = {address: asyncio.Event() for address in ends}

    async def serve(address: str) -> None:
        services = [hosted_service(stage, nano) for stage in HOSTED_STAGES]
        async with serving(services, address, ServerLimits(drain_seconds=0)):
            begun[address].set()
            await ends[address].wait()

    async with asyncio.TaskGroup() as servers:
        for address in ends:
            servers.create_task(serve(address))
        for each in begun.values():
            await each.wait()
        yield Replicas(StaticDirectory({stage: [*ends] for stage in HOSTED_STAGES}), ends)
        for end in ends.values():
            end.set()


@asynccontextmanager
async def gateway(nano: Path, caller: StageCaller, redis: RedisServer) -> AsyncIterator[TenantGateway]:
    metrics = Metrics()
    async with open_redis(redis.url, PATIENT, metrics=metrics) as storage:
        tenancy = open_tenancy(storage, SETTINGS)
        settings = GatewaySettings(checkpoint=nano)
        app: FastAPI = create_app(settings, caller.stages(), metrics=metrics, storage=storage, tenancy=tenancy)
        async with listening(app) as url:
            yield TenantGateway(app, tenancy, url)


async def test_a_response_is_one_trace_through_the_loss_of_its_replica_and_of_its_gateway(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_REALTIME_PREPARES", "false")
    exported = InMemorySpanExporter()
    traced = tracing.configure("test", SimpleSpanProcessor(exported))
    try:
        with running_redis(tmp_path) as redis:
            await a_response_that_lost_both(nano, tmp_path, redis)
    finally:
        traced.close()
    assert_one_trace(exported.get_finished_spans())
    counted = process_metrics().registry.get_sample_value
    for stage in ("thinker", "talker", "codec"):
        calls = counted(f"{names.METRIC_TENANT_STAGE_CALLS}_total", {"tenant": "acme", "stage": stage})
        assert (calls or 0) >= 2, "stages count whose calls they answer"


async def a_response_that_lost_both(nano: Path, folder: Path, redis: RedisServer) -> None:
    async with AsyncExitStack() as opened:
        stages = await opened.enter_async_context(replicas(nano, folder))
        caller = await opened.enter_async_context(StageCaller(stages))
        one, other = [await opened.enter_async_context(gateway(nano, caller, redis)) for _ in range(2)]
        by_key = {"additional_headers": {"authorization": f"Bearer {await one.enrol('acme')}"}}
        async with live(one.url, **by_key) as client:
            await client.say("Count to ten.")
            await client.ask("response.create", AUDIO, response={})
            stages.ends[stages.latest["talker"]].set()
            had = await lost_after(client, AUDIO, 12)
        async with returning(other.url, had, **by_key) as client:
            assert (await rest(client))["status"] == "completed"


def assert_one_trace(spans: Sequence[ReadableSpan]) -> None:
    first, second = (span for span in spans if span.name == names.SPAN_REALTIME_RESPONSE)
    sessions = [span for span in spans if span.name == "GET /v1/realtime"]
    assert len(sessions) == 2
    trace_id = first.context.trace_id
    assert first.parent is None
    assert second.parent is not None
    assert second.parent.span_id == first.context.span_id
    for response, session in zip((first, second), sessions, strict=True):
        assert [link.context.span_id for link in response.links] == [session.context.span_id]
    mine = [span for span in spans if span.context.trace_id == trace_id]
    known = {span.context.span_id for span in mine}
    assert [span.name for span in mine if span.parent is None] == [first.name]
    assert all(span.parent.span_id in known for span in mine if span.parent is not None), "no span hangs in the air"
    served = [span for span in mine if span.kind is SpanKind.SERVER]
    for method, attempts in (("Thinker", 2), ("Talker", 3), ("Codec", 2)):
        names_called = [span.name for span in served if f".{method}Service/" in span.name]
        assert len(names_called) >= attempts, f"{method}: the Talker was lost with its replica, all with their gateway"
    assert {(span.attributes or {}).get(names.TENANT) for span in mine} == {"acme"}
    stages_told = {(span.attributes or {}).get(names.STAGE) for span in mine}
    assert stages_told == {"gateway", "thinker", "talker", "codec"}
