"""A request that is repeated under its key is answered once, also for a client who hung up."""

import asyncio
import json

import httpx
import pytest

from antiphon.storage.connection import Storage
from antiphon.telemetry.metrics import Metrics
from antiphon.tenancy.opening import open_tenancy
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import MODEL, Fakes, body, listening, spoken
from tests.gateway.tenants.conftest import CHAT, SETTINGS, TenantGateway
from tests.gateway.test_disconnect import hang_up, send, until_open

KEY = {"idempotency-key": "order-1"}


def calls(fakes: Fakes) -> int:
    return fakes.thinker.behaviour.calls_finished


async def test_the_same_request_gets_the_same_answer_and_is_paid_once(gateway: TenantGateway, fakes: Fakes) -> None:
    key = await gateway.enrol("acme")
    async with gateway.client(key) as client:
        first, second = [await client.post(CHAT, json=spoken(), headers=KEY) for _ in range(2)]
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.content == second.content
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert calls(fakes) == 1
    assert len(await gateway.records("acme")) == 1


async def test_a_key_belongs_to_its_body_and_its_tenant(gateway: TenantGateway, fakes: Fakes) -> None:
    async with gateway.client(await gateway.enrol("acme")) as client:
        assert (await client.post(CHAT, json=body("a"), headers=KEY)).status_code == 200
        other = await client.post(CHAT, json=body("b"), headers=KEY)
        assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    async with gateway.client(await gateway.enrol("beta")) as client:
        answer = await client.post(CHAT, json=body("a"), headers=KEY)
    assert (answer.status_code, "idempotent-replayed" in answer.headers) == (200, False)
    assert calls(fakes) == 2


async def test_while_it_is_answered_another_is_told_to_wait(gateway: TenantGateway, fakes: Fakes) -> None:
    fakes.thinker.behaviour.pause_seconds = 0.2
    async with gateway.client(None) as client:
        first = asyncio.create_task(client.post(CHAT, json=body(), headers=KEY))
        await until_open(fakes, 1)
        second = await client.post(CHAT, json=body(), headers=KEY)
        assert (second.status_code, second.headers["retry-after"]) == (409, "1")
        assert (await first).status_code == 200
        third = await client.post(CHAT, json=body(), headers=KEY)
    assert third.headers["idempotent-replayed"] == "true"


async def test_a_client_who_hung_up_gets_his_answer_when_he_asks_again(gateway: TenantGateway, fakes: Fakes) -> None:
    fakes.thinker.behaviour.pause_seconds = 0.05
    _, writer = await send(gateway.url, body(), "\r\nIdempotency-Key: order-1")
    await until_open(fakes, 1)
    await hang_up(writer)
    async with gateway.client(None) as client:
        response = await _until_answered(client)
    assert (response.status_code, response.headers["idempotent-replayed"]) == (200, "true")
    assert calls(fakes) == 1


async def _until_answered(client: httpx.AsyncClient) -> httpx.Response:
    async with asyncio.timeout(5):
        while True:
            sent = json.dumps(body())  # the very bytes: it is they that are compared
            response = await client.post(CHAT, content=sent, headers=KEY)
            if response.status_code != 409:
                return response
            await asyncio.sleep(0.02)


async def test_what_failed_is_tried_again(gateway: TenantGateway, fakes: Fakes) -> None:
    fakes.thinker.behaviour.failure = ZeroDivisionError("a defect")  # type: ignore[assignment]
    async with gateway.client(None) as client:
        assert (await client.post(CHAT, json=body(), headers=KEY)).status_code == 500
        fakes.thinker.behaviour.failure = None
        answer = await client.post(CHAT, json=body(), headers=KEY)
    assert (answer.status_code, "idempotent-replayed" in answer.headers) == (200, False)


async def test_an_answer_without_room_is_given_and_made_again(
    settings: GatewaySettings, fakes: Fakes, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    narrow = SETTINGS.model_copy(update={"idempotency_tenant_bytes": 100})
    for kept_in in (None, storage):
        app = create_app(settings, fakes.stages(), metrics=Metrics(), tenancy=open_tenancy(kept_in, narrow))
        async with listening(app) as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
            for _ in range(2):
                answer = await client.post(CHAT, json=body(), headers=KEY)
                assert (answer.status_code, "idempotent-replayed" in answer.headers) == (200, False)
    assert caplog.text.count("could not be kept: TooLarge") == 4


async def test_a_form_that_is_built_anew_is_the_same_request(gateway: TenantGateway, fakes: Fakes) -> None:
    sound = {"file": ("a.wav", b"RIFF", "audio/wav")}
    async with gateway.client(None) as client:
        answers = [
            await client.post("/v1/audio/transcriptions", data={"model": MODEL}, files=sound, headers=KEY)
            for _ in range(2)
        ]
        assert answers[0].request.headers["content-type"] != answers[1].request.headers["content-type"]
        other = await client.post(
            "/v1/audio/transcriptions", data={"model": MODEL, "prompt": "cats"}, files=sound, headers=KEY
        )
    assert [answer.status_code for answer in (*answers, other)] == [200, 200, 422]
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert calls(fakes) == 1


async def test_streams_are_not_kept_and_end_when_their_client_does(gateway: TenantGateway, fakes: Fakes) -> None:
    async with gateway.client(None) as client:
        for _ in range(2):
            answer = await client.post(CHAT, json=body(stream=True), headers=KEY)
            assert (answer.status_code, "idempotent-replayed" in answer.headers) == (200, False)
    fakes.talker.behaviour.pause_seconds = 0.05
    fakes.talker.frames_after_text = 1000
    reader, writer = await send(gateway.url, spoken(stream=True), "\r\nIdempotency-Key: order-2")
    received = b""
    while b'"data":"' not in received:
        received += await reader.read(4096)
    await hang_up(writer)
    await fakes.until_closed()


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_has_a_length(gateway: TenantGateway, key: str) -> None:
    async with gateway.client(None) as client:
        assert (await client.post(CHAT, json=body(), headers={"idempotency-key": key})).status_code == 400
