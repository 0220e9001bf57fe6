"""A live response that goes on elsewhere is one request on its tenant's bill, and nobody else's to go on with."""

import asyncio
import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from antiphon.errors import Conflict, NotFound
from antiphon.tenancy.caller import TenantLimits
from services.gateway.realtime.session_keeper import SessionKeeper
from services.gateway.turns.answer_journal import AnswerJournals
from tests.gateway.conftest import Fakes
from tests.gateway.realtime.live import Event, Live, live
from tests.gateway.realtime.returning import lost_after, rest, returning, said
from tests.gateway.tenants.conftest import TenantGateway
from tests.gateway.tenants.test_resumed_bills import sums

AUDIO = "response.output_audio.delta"


@pytest.fixture
def fakes(fakes: Fakes) -> Fakes:
    fakes.talker.frames_after_text = 60
    fakes.talker.behaviour.pause_seconds = 0.01
    return fakes


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_REALTIME_KEEPS_SESSIONS", "true")
    # What is computed ahead is nobody's bill and would only take time here.
    monkeypatch.setenv("ANTIPHON_REALTIME_PREPARES", "false")


def by(key: str) -> dict[str, Any]:
    return {"additional_headers": {"authorization": f"Bearer {key}"}}


async def ask(client: Live) -> None:
    await client.say("what is it")
    await client.send("response.create", response={})


async def lost_before_its_first_word(client: Live, fakes: Fakes) -> list[Event]:
    await ask(client)
    await client.until("response.created")
    async with asyncio.timeout(20):
        while not fakes.thinker.behaviour.received:  # noqa: ASYNC110 - fakes have no event for this
            await asyncio.sleep(0.005)
    had = await lost_after(client, "response.created", 1)
    await fakes.until_closed()
    return had


async def test_a_response_that_went_on_twice_is_charged_once(gateway: TenantGateway) -> None:
    once, thrice = await gateway.enrol("once"), await gateway.enrol("thrice")
    async with live(gateway.url, **by(once)) as whole:
        await ask(whole)
        await rest(whole)
    async with live(gateway.url, **by(thrice)) as client:
        await ask(client)
        had = await lost_after(client, AUDIO, 5)
    cut = await gateway.records("thrice")
    async with returning(gateway.url, had, **by(thrice)) as client:
        had = await lost_after(client, AUDIO, 30)
    await gateway.records("thrice")
    async with returning(gateway.url, had, **by(thrice)) as client:
        await rest(client)
    assert said(client.events) == said(whole.events)
    records = await gateway.records("thrice")
    assert [record.outcome for record in records] == ["cancelled", "cancelled", "completed"]
    assert [record.requests for record in records] == [1, 0, 0]
    assert cut[0].completion_audio_tokens > 0
    once_sums = sums(await gateway.records("once"))
    assert sums(records)[:-1] == once_sums[:-1]
    assert sums(records)[-1] == pytest.approx(once_sums[-1], abs=len(records)), (
        "milliseconds are rounded in each record"
    )


async def test_another_tenants_session_is_unknown_with_any_event(gateway: TenantGateway) -> None:
    acme, evil = await gateway.enrol("acme"), await gateway.enrol("evil")
    async with live(gateway.url, **by(acme)) as client:
        await ask(client)
        had = await lost_after(client, AUDIO, 3)
    with pytest.raises(InvalidStatus) as raised:
        async with returning(gateway.url, had, **by(evil)):
            pass
    error = json.loads(raised.value.response.body)["error"]
    assert (raised.value.response.status_code, error["code"]) == (404, "session_not_found")
    async with returning(gateway.url, had, **by(acme)) as client:
        assert (await rest(client))["status"] == "completed"


async def test_who_comes_back_has_the_places_that_he_had(gateway: TenantGateway) -> None:
    """Although his gateway still holds them, as one that died does for a while."""
    limits = TenantLimits(concurrent_sessions=1, concurrent_turns=1)
    key = await gateway.enrol("acme", limits)
    async with live(gateway.url, **by(key)) as older:
        await ask(older)
        await older.until(AUDIO)
        async with returning(gateway.url, list(older.events), **by(key)) as client:
            assert (await rest(client))["status"] == "completed"
            with pytest.raises(InvalidStatus) as raised:
                async with live(gateway.url, **by(key)):
                    pass
            assert raised.value.response.status_code == 429


async def test_a_response_that_was_lost_before_its_first_word_is_one_request(
    gateway: TenantGateway, fakes: Fakes
) -> None:
    fakes.thinker.behaviour.pause_seconds = 30
    key = await gateway.enrol("acme")
    async with live(gateway.url, **by(key)) as client:
        had = await lost_before_its_first_word(client, fakes)
    await gateway.records("acme")
    fakes.thinker.behaviour.pause_seconds = 0
    async with returning(gateway.url, had, **by(key)) as client:
        assert (await rest(client))["status"] == "completed"
    records = await gateway.records("acme")
    assert sum(record.requests for record in records) == 1
    assert [record.outcome for record in records][-1] == "completed"


async def test_a_response_that_is_asked_again_has_a_line_of_its_own_on_the_bill(
    gateway: TenantGateway, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def finds_none(*_: Any) -> None:
        raise NotFound("It had not begun.")

    fakes.thinker.behaviour.pause_seconds = 30
    key = await gateway.enrol("acme")
    async with live(gateway.url, **by(key)) as client:
        had = await lost_before_its_first_word(client, fakes)
    await gateway.records("acme")
    fakes.thinker.behaviour.pause_seconds = 0
    monkeypatch.setattr(AnswerJournals, "find", finds_none)
    async with returning(gateway.url, had, **by(key)) as client:
        done = await rest(client)
    whole = (await gateway.records("acme"))[-1]
    assert (whole.outcome, whole.completion_audio_tokens > 0) == ("completed", True)
    assert whole.id.startswith(f"{done['id']}.")


async def refused(gateway: TenantGateway, key: str, query: str | None = None) -> int:
    """The status that a connection is refused with."""
    named = {} if query is None else {"query": query}
    with pytest.raises(InvalidStatus) as raised:
        async with live(gateway.url, **named, **by(key)):
            pass
    return raised.value.response.status_code


async def test_who_names_a_session_that_is_not_kept_yet_frees_no_place(gateway: TenantGateway) -> None:
    key = await gateway.enrol("acme", TenantLimits(concurrent_sessions=1))
    async with live(gateway.url, **by(key)) as client:
        assert await refused(gateway, key, f"session_id={client.events[0]['session']['id']}") == 404
        assert await refused(gateway, key) == 429
        await client.say("still here")


async def test_a_session_that_is_not_taken_over_keeps_its_place(
    gateway: TenantGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> None:
        raise Conflict("It is in use.")

    key = await gateway.enrol("acme", TenantLimits(concurrent_sessions=1))
    async with live(gateway.url, **by(key)) as client:
        await client.say("it is kept")
        monkeypatch.setattr(SessionKeeper, "take_over", fails)
        assert await refused(gateway, key, f"session_id={client.events[0]['session']['id']}") == 409
        assert await refused(gateway, key) == 429
        await client.say("still here")
