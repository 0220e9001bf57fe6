"""Fakes of the stages and the real gateway on a real Ray Serve: streaming, hanging up, draining, scaling, tracing."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from antiphon.errors import AtCapacity
from antiphon.hosting import fakes
from antiphon.hosting.free_port import free_port
from antiphon.hosting.ray_cluster import RayHost, deployed, redeploy
from antiphon.hosting.ray_serve import (
    DEPLOYMENT_NAME,
    Scale,
    StageArguments,
    Tunables,
    ray_directory,
    stage_application,
)
from antiphon.hosting.replica_directory import ReplicaDirectory
from antiphon.scaling.pacing import Pacing
from antiphon.scaling.policies import CallsPolicy
from antiphon.telemetry import names
from antiphon.telemetry.otlp_receiver import receiving
from antiphon.telemetry.span_records import SpanRecord
from antiphon.telemetry.trace_assembly import TraceAssembly
from antiphon.v1.codec_service_pb2 import DecodeRequest
from antiphon.wire.clients import StageCaller
from antiphon.wire.methods import SERVICES
from services.gateway import deployment as gateway
from tests.hosting import requests

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]

PAUSE_SECONDS = 0.2
SMALL = Scale(cpus=0.1)


@dataclass(frozen=True)
class Platform:
    client: httpx.AsyncClient
    spans: list[SpanRecord]
    directory: ReplicaDirectory
    caller: StageCaller

    async def active(self, stage: str) -> int:
        """Calls that the stage's replicas are answering now."""
        reports = await self.directory.reports(stage)  # type: ignore[arg-type]
        return sum(report.active_calls for report in reports)

    async def addresses(self, stage: str) -> set[str]:
        return {report.address for report in await self.directory.reports(stage)}  # type: ignore[arg-type]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(nano: Path) -> AsyncIterator[Platform]:
    spans: list[SpanRecord] = []
    port = free_port("127.0.0.1")
    applications = {stage: stage_application(*fake(stage, nano)) for stage in SERVICES}
    applications["gateway"] = gateway.build(gateway.GatewayArguments(checkpoint=nano, scale=SMALL))
    async with receiving("127.0.0.1:0", spans.extend) as collector:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector}")
            async with deployed(applications, "gateway", RayHost(http_port=port, cpus=4)):
                directory = ray_directory()
                async with (
                    httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
                    StageCaller(directory) as caller,
                ):
                    yield Platform(client, spans, directory, caller)
                await directory.close()


def fake(stage: str, checkpoint: Path, **arguments: object) -> tuple[object, StageArguments]:
    make = partial(fakes.hosted_one, stage, PAUSE_SECONDS)  # type: ignore[arg-type]
    return make, StageArguments.model_validate({"checkpoint": checkpoint, "scale": SMALL, **arguments})


def body(**fields: object) -> dict[str, object]:
    return {
        "model": "antiphon-nano",
        "messages": [{"role": "user", "content": "hello"}],
        "modalities": ["text", "audio"],
        "audio": {"voice": "ethan", "format": "pcm16"},
        "stream": True,
        **fields,
    }


async def until(condition: Callable[[], Awaitable[bool]], timeout_seconds: float = 30.0) -> None:
    async with asyncio.timeout(timeout_seconds):
        while not await condition():  # noqa: ASYNC110 - what is waited for lies in another process
            await asyncio.sleep(0.1)


async def test_answers_stream_through_serves_proxy(platform: Platform) -> None:
    arrived: list[float] = []
    async with platform.client.stream("POST", "/v1/chat/completions", json=body()) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                assert "error" not in json.loads(line[6:])
                arrived.append(time.monotonic())
    assert len(arrived) > 5
    assert arrived[-1] - arrived[0] > 3 * PAUSE_SECONDS


async def test_readiness_asks_the_replicas(platform: Platform) -> None:
    answer = (await platform.client.get("/readyz")).json()
    assert answer == {"status": "ready", "stages": dict.fromkeys(SERVICES, True)}


async def test_a_client_that_hangs_up_stops_every_stage(platform: Platform) -> None:
    async with platform.client.stream("POST", "/v1/chat/completions", json=body()) as response:
        lines = response.aiter_lines()
        await anext(lines)
        await until(lambda: has_active(platform, "talker", 1))
    started = time.monotonic()
    await until(lambda: nothing_active(platform))
    assert time.monotonic() - started < 5 * PAUSE_SECONDS + 2


async def nothing_active(platform: Platform) -> bool:
    return not any([await platform.active(stage) for stage in SERVICES])


async def test_one_turn_is_one_trace_over_every_process(platform: Platform) -> None:
    trace_id = "c0ffee" + "0" * 26
    headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-01"}
    await platform.client.post("/v1/chat/completions", json=body(stream=False), headers=headers)
    assembly = TraceAssembly()

    async def arrived() -> bool:
        found = [span for span in platform.spans if span.trace_id == trace_id]
        stages = {span.stage for span in found if span.kind == "server"}
        return stages == {"gateway", "thinker", "talker", "codec"}

    await until(arrived)
    found = [span for span in platform.spans if span.trace_id == trace_id]
    assembly.add(found, 0.0)
    assert {span.service for span in found} == {
        f"antiphon-{stage}" for stage in ("gateway", "thinker", "talker", "codec")
    }
    by_id = {span.span_id: span for span in found}
    for span in found:
        if span.kind == "server" and span.stage != "gateway":
            assert span.parent_id is not None
            assert by_id[span.parent_id].kind == "client"
            assert span.attributes[names.RPC_METHOD] == span.name


async def test_an_update_loses_no_stream(platform: Platform, nano: Path) -> None:
    """A new version replaces the replica while streams are open: the old one finishes them."""
    before = await platform.addresses("thinker")
    hold = asyncio.Event()
    speaking = [
        asyncio.create_task(drained(platform.caller.stages().talker.speak(requests.speak(hold_before_last=hold))))
        for _ in range(3)
    ]
    old = await platform.addresses("talker")
    await until(lambda: has_active(platform, "talker", 3))
    tunables = Tunables(drain_seconds=15)
    update = asyncio.create_task(redeploy("talker", stage_application(*fake("talker", nano, tunables=tunables))))
    await until(lambda: moved(platform, "talker", old), 60)
    hold.set()
    assert await asyncio.gather(*speaking) == [7, 7, 7]
    await update
    assert await drained(platform.caller.stages().talker.speak(requests.speak())) == 7
    assert await platform.addresses("thinker") == before  # no other application restarts


async def moved(platform: Platform, stage: str, old: set[str]) -> bool:
    addresses = await platform.addresses(stage)
    return bool(addresses) and not addresses & old


async def has_active(platform: Platform, stage: str, count: int) -> bool:
    return await platform.active(stage) == count


async def drained(answers: AsyncIterator[object]) -> int:
    return len([answer async for answer in answers])


async def held_decode(hold: asyncio.Event) -> AsyncIterator[DecodeRequest]:
    """One frame at once, the end when it may come."""
    async for request in requests.decode(1):
        if request.HasField("end"):
            await hold.wait()
        yield request


async def test_load_brings_replicas_and_rest_takes_them_away(platform: Platform, nano: Path) -> None:
    pacing = Pacing(start_seconds=0, spread=0, slack_share=0, hold_seconds=2, down_period_seconds=0)
    scale = Scale(cpus=0.1, max_replicas=2, policy=CallsPolicy(calls_per_replica=2), pacing=pacing)
    await redeploy("codec", stage_application(*fake("codec", nano, scale=scale)))
    hold = asyncio.Event()
    codec = platform.caller.stages().codec
    first = [asyncio.create_task(drained(codec.decode(held_decode(hold)))) for _ in range(4)]
    await until(lambda: has_replicas(platform, "codec", 2), 60)
    await asyncio.sleep(1.5)  # until the directory has heard of the new one
    more = [asyncio.create_task(drained(codec.decode(held_decode(hold)))) for _ in range(2)]
    await until(lambda: has_active(platform, "codec", 6))
    assert min(await loads(platform, "codec")) >= 2  # the new replica got the new calls
    hold.set()
    assert await asyncio.gather(*first, *more) == [2] * 6
    await until(lambda: has_replicas(platform, "codec", 1), 60)
    assert await drained(codec.decode(requests.decode(1))) == 2


async def has_replicas(platform: Platform, stage: str, count: int) -> bool:
    return len(await platform.addresses(stage)) == count


async def loads(platform: Platform, stage: str) -> Sequence[int]:
    return [report.active_calls for report in await platform.directory.reports(stage)]  # type: ignore[arg-type]


def config_file(checkpoint: Path, codec_tunables: dict[str, object]) -> ServeDeploySchema:
    """What an operator writes: the real stages by their import paths, one application each."""
    scale = {"cpus": 0.1}
    applications = [
        {
            "name": stage,
            "route_prefix": None,
            "import_path": f"services.{stage}.deployment:build",
            "args": {"checkpoint": str(checkpoint), "scale": scale},
        }
        for stage in SERVICES
    ]
    codec = next(application for application in applications if application["name"] == "codec")
    codec["deployments"] = [{"name": DEPLOYMENT_NAME, "user_config": codec_tunables}]
    gateway_arguments = {"checkpoint": str(checkpoint), "scale": scale}
    applications.append(
        {
            "name": "gateway",
            "route_prefix": "/",
            "import_path": "services.gateway.deployment:build",
            "args": gateway_arguments,
        }
    )
    return ServeDeploySchema.model_validate({"applications": applications})


async def deploy(config: ServeDeploySchema) -> None:
    client = _get_global_client()
    await asyncio.to_thread(client.deploy_apps, config)

    async def running() -> bool:
        status = await asyncio.to_thread(serve.status)
        assert "DEPLOY_FAILED" not in {application.status for application in status.applications.values()}, status
        return all(application.status == "RUNNING" for application in status.applications.values())

    await asyncio.sleep(1)
    await until(running, 120)


async def test_the_real_stages_run_from_a_config_file_and_are_tuned_in_place(platform: Platform, nano: Path) -> None:
    await deploy(config_file(nano, {"max_active_calls": 8, "drain_seconds": 1}))
    question = body(messages=[{"role": "user", "content": "What sound does a cow make?"}], temperature=0, stream=False)
    answer = await platform.client.post("/v1/chat/completions", json=question, timeout=60)
    assert answer.status_code == 200, answer.text
    assert "moo" in answer.json()["choices"][0]["message"]["audio"]["transcript"]
    before = {stage: await platform.addresses(stage) for stage in SERVICES}
    await deploy(config_file(nano, {"max_active_calls": 1, "drain_seconds": 1}))
    assert {stage: await platform.addresses(stage) for stage in SERVICES} == before
    hold = asyncio.Event()
    codec = platform.caller.stages().codec
    first = asyncio.create_task(drained(codec.decode(held_decode(hold))))
    await until(lambda: has_active(platform, "codec", 1))
    with pytest.raises(AtCapacity):
        await drained(codec.decode(requests.decode(1)))
    hold.set()
    assert await first == 2


async def test_a_gateway_that_serve_stops_tells_its_live_sessions_and_ends(platform: Platform) -> None:
    """The last test of this platform: it has no gateway any more."""
    url = str(platform.client.base_url).replace("http", "ws", 1)
    async with connect(f"{url}/v1/realtime?model=antiphon-nano") as session:
        assert json.loads(await session.recv())["type"] == "session.created"
        stopping = asyncio.create_task(asyncio.to_thread(serve.delete, "gateway"))
        with pytest.raises(ConnectionClosed) as told:
            await asyncio.wait_for(session.recv(), 20)
    assert told.value.rcvd is not None
    assert (told.value.rcvd.code, "is stopping" in told.value.rcvd.reason) == (1001, True)
    async with asyncio.timeout(20):  # Serve would kill it after 40 s
        await stopping
