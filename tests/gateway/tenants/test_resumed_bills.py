"""An answer that goes on elsewhere is one request on its tenant's bill, and nobody else's to go on with."""

import asyncio

import httpx
import pytest

from antiphon.tenancy.caller import TenantLimits
from antiphon.tenancy.usage_log import UsageRecord
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, assert_envelope
from tests.gateway.tenants.conftest import CHAT, TenantGateway
from tests.gateway.test_resumed_streams import ASKED, Heard, beginning


@pytest.fixture
def settings(settings: GatewaySettings) -> GatewaySettings:
    return settings.model_copy(update={"journals_answers": True})


@pytest.fixture
def fakes(fakes: Fakes) -> Fakes:
    fakes.talker.frames_after_text = 60
    fakes.talker.behaviour.pause_seconds = 0.01
    return fakes


def sums(records: list[UsageRecord]) -> tuple[int, ...]:
    """Requests, and what they took."""
    rows = [
        (r.requests, r.prompt_tokens, r.completion_text_tokens, r.completion_audio_tokens, r.audio_out_ms)
        for r in records
    ]
    return tuple(map(sum, zip(*rows, strict=True)))


async def hear(client: httpx.AsyncClient, heard: Heard, events: int | None = None) -> None:
    """All of it, or its beginning."""
    url = f"{CHAT}/{heard.answer_id}/events" if heard.events else CHAT
    method, asked = ("GET", None) if heard.events else ("POST", ASKED)
    headers = {"last-event-id": heard.last_id} if heard.events else {}
    async with client.stream(method, url, json=asked, headers=headers) as stream:
        parts = stream.aiter_text()
        heard.read(await beginning(parts, events) if events else "".join([part async for part in parts]))


async def test_what_was_charged_before_the_client_left_is_not_charged_again(gateway: TenantGateway) -> None:
    whole, twice = Heard(), Heard()
    async with gateway.client(await gateway.enrol("once")) as client:
        await hear(client, whole)
    async with gateway.client(await gateway.enrol("thrice")) as client:
        await hear(client, twice, 15)
        cut = await gateway.records("thrice")
        await hear(client, twice, 15)
        await gateway.records("thrice")
        await hear(client, twice)
    once, thrice = await gateway.records("once"), await gateway.records("thrice")
    assert (whole.text, whole.pcm) == (twice.text, twice.pcm)
    assert [record.outcome for record in thrice] == ["cancelled", "cancelled", "completed"]
    assert cut[0].requests == 1
    assert sums(thrice)[:-1] == sums(once)[:-1]
    assert sums(thrice)[-1] == pytest.approx(sums(once)[-1], abs=len(thrice)), "milliseconds are rounded in each record"


async def test_who_took_an_answer_over_is_charged_with_all_of_it(gateway: TenantGateway) -> None:
    whole, first, second = Heard(), Heard(), Heard()
    async with gateway.client(await gateway.enrol("once")) as client:
        await hear(client, whole)
    async with (
        gateway.client(await gateway.enrol("taken")) as client,
        client.stream("POST", CHAT, json=ASKED) as stream,
    ):
        parts = stream.aiter_text()
        first.read(await beginning(parts, 15))
        second.events, second.last_id = first.events[:], first.last_id
        taking = asyncio.create_task(hear(client, second))
        first.read("".join([part async for part in parts]))
        await taking
    assert first.error is not None
    taken = await gateway.records("taken")
    assert len(taken) == 1
    assert sums(taken) == sums(await gateway.records("once"))


async def test_who_goes_on_has_the_place_that_the_answer_had(gateway: TenantGateway) -> None:
    """Although its gateway still holds it, as one that died does for a while."""
    first, second = Heard(), Heard()
    key = await gateway.enrol("acme", TenantLimits(concurrent_turns=1))
    async with gateway.client(key) as client, client.stream("POST", CHAT, json=ASKED) as stream:
        first.read(await beginning(stream.aiter_text(), 15))
        assert (await client.post(CHAT, json=ASKED)).status_code == 429
        second.events, second.last_id = first.events[:], first.last_id
        await hear(client, second)
    assert second.is_done


async def test_nobody_is_charged_with_sound_that_was_never_made(gateway: TenantGateway) -> None:
    whole, cut = Heard(), Heard()
    async with gateway.client(await gateway.enrol("once")) as client:
        await hear(client, whole)
    async with gateway.client(await gateway.enrol("mistaken")) as client:
        await hear(client, cut, 15)
        characters = cut.last_id.split(".")[1]
        claimed = {"last-event-id": f"{cut.answer_id}.{characters}.9999999999.0"}
        await client.get(f"{CHAT}/{cut.answer_id}/events", headers=claimed)
    assert sums(await gateway.records("mistaken"))[-1] <= sums(await gateway.records("once"))[-1] + 80


async def test_another_tenants_answer_is_unknown(gateway: TenantGateway) -> None:
    heard = Heard()
    async with gateway.client(await gateway.enrol("acme")) as client:
        await hear(client, heard, 5)
    async with gateway.client(await gateway.enrol("evil")) as client:
        refused = await client.get(f"{CHAT}/{heard.answer_id}/events", headers={"last-event-id": heard.last_id})
        assert_envelope(refused, 404, "answer_id")
    async with gateway.client(None) as client:
        assert (await client.get(f"{CHAT}/{heard.answer_id}/events")).status_code == 401
    assert await gateway.records("evil") == []
