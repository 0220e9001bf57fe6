"""Live sessions of tenants: their keys while they last, their limits, and what is charged."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import baggage
from websockets.exceptions import ConnectionClosed, InvalidStatus

from antiphon.storage.connection import open_redis
from antiphon.storage.settings import StorageSettings
from antiphon.telemetry import names, tracing
from antiphon.telemetry.metrics import Metrics
from antiphon.telemetry.span_records import SpanRing
from antiphon.tenancy.caller import TenantLimits
from antiphon.tenancy.opening import open_tenancy
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, listening
from tests.gateway.realtime.live import Live, live
from tests.gateway.tenants.conftest import SETTINGS, TenantGateway
from tests.redis_server import RedisServer, running_redis


def headers(key: str) -> dict[str, Any]:
    return {"additional_headers": {"authorization": f"Bearer {key}"}}


async def closing_of(client: Live) -> tuple[int, str]:
    """Code and reason with which the server closes; what it says before is kept in `events`."""
    try:
        while True:
            await client.next()
    except ConnectionClosed as closed:
        return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (0, "")


class TestKeys:
    async def test_a_key_that_is_revoked_ends_its_session_at_the_next_answer(self, gateway: TenantGateway) -> None:
        key = await gateway.enrol("acme")
        (record,) = (await gateway.tenancy.registry.all())[1]
        async with live(gateway.url, **headers(key)) as client:
            await client.say("what is it")
            assert (await client.respond())["status"] == "completed"
            await gateway.tenancy.desk().revoke(record.id, "test")
            failed = await client.respond()
            assert failed["status_details"]["error"]["code"] == "invalid_api_key"
            code, reason = await closing_of(client)
        assert (code, "revoked" in reason) == (1008, True)
        assert client.events[-1]["error"]["code"] == "invalid_api_key"

    async def test_limits_that_change_hold_for_the_next_answer(self, gateway: TenantGateway) -> None:
        key = await gateway.enrol("acme")
        async with live(gateway.url, **headers(key)) as client:
            await client.say("what is it")
            assert (await client.respond())["status"] == "completed"
            desk = gateway.tenancy.desk()
            tenant = await desk.tenant("acme")
            await desk.change_tenant(tenant.model_copy(update={"limits": TenantLimits(requests_per_minute=0)}), "test")
            refused = await client.respond()
            assert refused["status_details"]["error"]["code"] == "rate_limit_exceeded"
            await client.ask("input_audio_buffer.clear", "input_audio_buffer.cleared")

    async def test_an_account_that_is_disabled_ends_its_sessions(self, gateway: TenantGateway) -> None:
        key = await gateway.enrol("acme")
        async with live(gateway.url, **headers(key)) as client:
            desk = gateway.tenancy.desk()
            await desk.change_tenant((await desk.tenant("acme")).model_copy(update={"disabled": True}), "test")
            await client.say("what is it")
            assert (await client.respond())["status_details"]["error"]["code"] == "account_deactivated"
            assert (await closing_of(client))[0] == 1008


class TestLimits:
    async def test_what_is_left_is_told(self, gateway: TenantGateway) -> None:
        limits = TenantLimits(requests_per_minute=50, tokens_per_minute=10_000)
        key = await gateway.enrol("acme", limits)
        async with live(gateway.url, **headers(key)) as client:
            await client.say("what is it")
            done = await client.respond()
            told = {limit["name"]: limit for limit in rate_limits(client)[-1]}
            await client.respond()
            later = {limit["name"]: limit for limit in rate_limits(client)[-1]}
        assert (told["requests"]["limit"], told["tokens"]["limit"]) == (50, 10_000)
        # The connection and this answer.
        assert told["requests"]["remaining"] == 48
        assert later["requests"]["remaining"] == 47
        assert told["tokens"]["remaining"] < 10_000 - done["usage"]["input_tokens"]
        assert 0 < told["requests"]["reset_seconds"] <= 60

    async def test_no_more_sessions_at_once_than_allowed(self, gateway: TenantGateway) -> None:
        key = await gateway.enrol("acme", TenantLimits(concurrent_sessions=1))
        async with live(gateway.url, **headers(key)):
            with pytest.raises(InvalidStatus) as refused:
                async with live(gateway.url, **headers(key)):
                    pass
            assert refused.value.response.status_code == 429
        async with asyncio.timeout(5):
            while not await opens(gateway, key):  # noqa: ASYNC110 - the server tells nobody that a place is free
                await asyncio.sleep(0.02)

    async def test_who_hangs_up_pays_for_what_he_got_and_for_no_more(
        self, gateway: TenantGateway, fakes: Fakes
    ) -> None:
        """Ten seconds are reserved; what was not spoken comes back."""
        key = await gateway.enrol("acme", TenantLimits(audio_out_seconds_per_minute=12.0))
        fakes.talker.behaviour.pause_seconds = 0.02
        fakes.talker.frames_after_text = 1000
        async with live(gateway.url, **headers(key)) as client:
            await client.say("what is it")
            await client.ask("response.create", "response.output_audio.delta")
            client.socket.transport.abort()
        await fakes.until_closed()
        fakes.talker.frames_after_text = 1
        (record,) = await gateway.records("acme")
        assert 0 < record.audio_out_ms < 10_000
        assert record.outcome == "cancelled"
        async with live(gateway.url, **headers(key)) as client:
            await client.say("what is it")
            assert (await client.respond())["status"] == "completed"

    async def test_audio_of_a_minute_is_bounded_for_sessions_too(self, gateway: TenantGateway, fakes: Fakes) -> None:
        key = await gateway.enrol("acme", TenantLimits(audio_out_seconds_per_minute=1.0))
        fakes.talker.frames_after_text = 40
        async with live(gateway.url, **headers(key)) as client:
            await client.say("what is it")
            statuses = [(await client.respond())["status"] for _ in range(3)]
        assert statuses[-1] == "failed"


class TestClientSecrets:
    async def test_a_secret_of_one_gateway_opens_a_session_at_another(
        self, gateway: TenantGateway, settings: GatewaySettings, fakes: Fakes
    ) -> None:
        key = await gateway.enrol("acme", TenantLimits(concurrent_sessions=1))
        async with gateway.client(key) as http:
            made = await secret_of(http, {"type": "realtime", "instructions": "be brief"})
        other = create_app(settings, fakes.stages(), metrics=Metrics(), tenancy=gateway.tenancy)
        async with listening(other) as url, live(url, query="", **headers(made["value"])) as client:
            assert client.events[0]["session"]["instructions"] == "be brief"
            await client.say("what is it")
            assert (await client.respond())["status"] == "completed"
            # The limit of whoever made it.
            with pytest.raises(InvalidStatus) as refused:
                async with live(gateway.url, query="", **headers(made["value"])):
                    pass
            assert refused.value.response.status_code == 429
        (record, *_) = await TenantGateway(other, gateway.tenancy, "").records("acme")
        assert (record.tenant, record.endpoint) == ("acme", "/v1/realtime")

    async def test_a_secret_of_a_revoked_key_opens_nothing(self, gateway: TenantGateway) -> None:
        key = await gateway.enrol("acme")
        async with gateway.client(key) as http:
            made = await secret_of(http, {"type": "realtime"})
        (record,) = (await gateway.tenancy.registry.all())[1]
        await gateway.tenancy.desk().revoke(record.id, "test")
        with pytest.raises(InvalidStatus) as refused:
            async with live(gateway.url, query="", **headers(made["value"])):
                pass
        assert refused.value.response.status_code == 401


async def test_while_redis_is_away_answers_fail_and_the_session_goes_on(
    settings: GatewaySettings, fakes: Fakes, tmp_path: Path
) -> None:
    with running_redis(tmp_path) as server:
        async with open_redis(server.url, StorageSettings(), Metrics()) as storage:
            tenancy = open_tenancy(storage, SETTINGS)
            app = create_app(settings, fakes.stages(), metrics=Metrics(), tenancy=tenancy)
            async with listening(app) as url:
                key = await TenantGateway(app, tenancy, url).enrol("acme", TenantLimits(concurrent_sessions=1))
                async with live(url, **headers(key)) as client:
                    await an_outage(client, fakes, server)


async def an_outage(client: Live, fakes: Fakes, server: RedisServer) -> None:
    await client.say("what is it")
    fakes.talker.behaviour.pause_seconds = 0.02
    fakes.talker.frames_after_text = 30
    await client.ask("response.create", "response.output_audio.delta")
    server.kill()
    assert (await client.until("response.done"))["response"]["status"] == "completed"
    failed = await client.respond()
    error = failed["status_details"]["error"]
    assert (error["type"], error["code"]) == ("server_error", "unavailable")
    server.start()
    async with asyncio.timeout(10):
        while (await client.respond())["status"] != "completed":  # noqa: ASYNC110 - Redis tells nobody that it is back
            await asyncio.sleep(0.1)


async def secret_of(http: httpx.AsyncClient, session: dict[str, Any]) -> dict[str, Any]:
    made = await http.post("/v1/realtime/client_secrets", json={"session": session})
    assert made.status_code == 200, made.text
    told: dict[str, Any] = made.json()
    return told


async def opens(gateway: TenantGateway, key: str) -> bool:
    try:
        async with live(gateway.url, **headers(key)):
            return True
    except InvalidStatus:
        return False


def rate_limits(client: Live) -> list[list[dict[str, Any]]]:
    return [event["rate_limits"] for event in client.events if event["type"] == "rate_limits.updated"]


class TestTelemetry:
    async def test_every_upgrade_has_an_id_and_every_refusal_too(self, gateway: TenantGateway) -> None:
        key = await gateway.enrol("acme")
        async with live(gateway.url, **headers(key)) as client:
            assert client.socket.response is not None
            assert client.socket.response.headers["x-request-id"].startswith("req_")
        with pytest.raises(InvalidStatus) as refused:
            async with live(gateway.url, **headers("no-key")):
                pass
        assert refused.value.response.headers["x-request-id"].startswith("req_")

    async def test_each_response_is_a_trace_of_its_own_that_names_session_and_tenant(
        self, gateway: TenantGateway, fakes: Fakes
    ) -> None:
        key = await gateway.enrol("acme")
        ring = SpanRing()
        traced = tracing.configure("test", ring)
        try:
            forged = {"additional_headers": {"authorization": f"Bearer {key}", "baggage": f"{names.TENANT}=other"}}
            async with live(gateway.url, **forged) as client:
                await client.say("what is it")
                for _ in range(2):
                    assert (await client.respond())["status"] == "completed"
            await fakes.until_closed()
            async with asyncio.timeout(5):
                while ring.open_count:  # noqa: ASYNC110 - the server ends a little after its client
                    await asyncio.sleep(0.01)
        finally:
            traced.close()
        (session,) = (span for span in ring.spans() if span.name == "GET /v1/realtime")
        first, second = (span for span in ring.spans() if span.name == "realtime.response")
        assert len({session.trace_id, first.trace_id, second.trace_id}) == 3
        assert first.parent_id is None
        assert {span.attributes[names.TENANT] for span in (session, first, second)} == {"acme"}
        assert first.attributes["gen_ai.conversation.id"] == session.attributes["gen_ai.conversation.id"]

    async def test_the_stages_are_told_whose_turn_it_is(self, gateway: TenantGateway, fakes: Fakes) -> None:
        key = await gateway.enrol("acme")
        told: list[object] = []
        generate = fakes.thinker.generate

        def listening_generate(*arguments: Any, **options: Any) -> Any:
            told.append(baggage.get_baggage(names.TENANT))
            return generate(*arguments, **options)

        fakes.thinker.generate = listening_generate  # type: ignore[method-assign]
        async with live(gateway.url, **headers(key)) as client:
            await client.say("what is it")
            await client.respond()
        assert set(told) == {"acme"}
