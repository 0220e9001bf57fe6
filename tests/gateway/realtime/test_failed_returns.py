"""What fails when a client comes back is told to it, and its session goes on."""

import asyncio
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from antiphon.errors import AntiphonError, InternalError, NotFound, Unavailable
from antiphon.sessions.redis_event_log import RedisEventLog
from services.gateway.config import GatewaySettings
from services.gateway.turns.answer_journal import AnswerJournals
from tests.gateway.conftest import Fakes
from tests.gateway.realtime.live import Event, Live, live
from tests.gateway.realtime.returning import Two, ask, caught_up, content, gateways, lost_after, rest, returning
from tests.redis_server import RedisServer

AUDIO = "response.output_audio.delta"


@pytest.fixture(autouse=True)
def nothing_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is computed ahead asks the stages, too."""
    monkeypatch.setenv("ANTIPHON_REALTIME_PREPARES", "false")


@pytest.fixture
def no_journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where one was lost before it had begun."""

    async def finds_none(*_: Any) -> None:
        raise NotFound("It had not begun.")

    monkeypatch.setattr(AnswerJournals, "find", finds_none)


@pytest.mark.parametrize("error", [Unavailable("The storage is away."), InternalError("It cannot be read.")])
async def test_a_response_whose_journal_cannot_be_read_fails_and_the_next_is_given(
    two: Two, fakes: Fakes, monkeypatch: pytest.MonkeyPatch, error: AntiphonError
) -> None:
    async def fails(*_: Any) -> None:
        raise error

    (one, _), (other, _) = two
    fakes.talker.behaviour.pause_seconds = 0.01
    async with live(one) as client:
        await ask(client)
        had = await lost_after(client, AUDIO, 2)
    with monkeypatch.context() as broken:
        broken.setattr(AnswerJournals, "find", fails)
        async with returning(other, had) as client:
            assert (await rest(client))["status"] == "failed"
            assert (await client.respond())["status"] == "completed"


async def lost_before_its_first_word(client: Live, fakes: Fakes, **response: Any) -> tuple[list[Event], list[int]]:
    """What the client has, and the prompt."""
    fakes.thinker.behaviour.pause_seconds = 30
    fakes.thinker.behaviour.received.clear()
    await ask(client, **response)
    await client.until("response.created")
    async with asyncio.timeout(20):
        while not fakes.thinker.behaviour.received:  # noqa: ASYNC110 - fakes have no event for this
            await asyncio.sleep(0.005)
    had = await lost_after(client, "response.created", 1)
    await fakes.until_closed()
    fakes.thinker.behaviour.pause_seconds = 0
    return had, prompt(fakes)


def named(events: list[Event]) -> str:
    """The query of who comes back to this session."""
    return f"session_id={events[0]['session']['id']}"


def prompt(fakes: Fakes) -> list[int]:
    """Of the last turn."""
    return [list(got.start.prompt.token_ids) for got in fakes.thinker.behaviour.received if got.HasField("start")][-1]


@pytest.mark.usefixtures("no_journals")
async def test_a_response_that_is_asked_again_is_asked_as_its_session_says(two: Two, fakes: Fakes) -> None:
    (one, _), (other, _) = two
    tools = [{"type": "function", "name": "find", "parameters": {"type": "object"}}]
    async with live(one) as client:
        await client.update(instructions="be brief", tools=tools)
        had, asked = await lost_before_its_first_word(client, fakes)
    async with returning(other, had) as client:
        response = await rest(client)
    assert (response["status"], response["id"]) == ("completed", had[-1]["response"]["id"])
    assert prompt(fakes) == asked


@pytest.mark.usefixtures("no_journals")
@pytest.mark.parametrize(
    "own",
    [
        {"instructions": "be brief"},
        {"tools": [{"type": "function", "name": "find", "parameters": {"type": "object"}}]},
        {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and this"}]}]},
    ],
    ids=lambda own: next(iter(own)),
)
async def test_a_response_whose_own_wishes_were_lost_fails(two: Two, fakes: Fakes, own: dict[str, Any]) -> None:
    """Given without them it would be another one."""
    (one, _), (other, _) = two
    async with live(one) as client:
        had, _ = await lost_before_its_first_word(client, fakes, **own)
    async with returning(other, had) as client:
        assert (await rest(client))["status"] == "failed"
        assert (await client.respond())["status"] == "completed"


async def test_a_session_that_became_too_large_is_not_come_back_to_as_an_older_one(
    settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_SESSIONS_CONVERSATION_ITEMS", "2")
    async with gateways(settings, fakes.stages(), redis_server.url, redis_server.url) as ((one, _), (other, _)):
        async with live(one) as client:
            for count in range(3):
                await client.say(f"number {count}")
            assert (await client.respond())["status"] == "completed", "its own connection goes on"
            had = list(client.events)
        for query in (named(had), f"{named(had)}&last_event_id={had[-1]['event_id']}"):
            with pytest.raises(InvalidStatus, match="404"):
                async with live(other, query=query):
                    pass


async def test_what_could_not_be_kept_once_is_kept_with_what_follows(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[bool] = []
    keep = RedisEventLog.keep

    async def fails_once(*given: Any) -> int:
        if given[-1] is not None and not failed:
            failed.append(True)
            raise InternalError("It answers what is not expected.")
        return await keep(*given)

    (one, app), (other, _) = two
    async with live(one) as client:
        await client.say("this is kept", id="first")
        known = await caught_up(client, app)
        monkeypatch.setattr(RedisEventLog, "keep", fails_once)
        await client.say("this is not kept at once", id="second")
        await client.ask("input_audio_buffer.clear", "input_audio_buffer.cleared")
        had = await caught_up(client, app)
        client.socket.transport.abort()
    assert failed
    async with returning(other, list(known)) as back:
        for _ in had[len(known) :]:
            await back.next()
        assert [content(event) for event in back.events] == [content(event) for event in had]


async def test_a_response_that_ended_as_incomplete_stays_so(two: Two, fakes: Fakes) -> None:
    (one, _), (other, _) = two
    fakes.talker.behaviour.pause_seconds = 0.01
    async with live(one) as client:
        await ask(client)
        had = await lost_after(client, AUDIO, 2)
    fakes.talker.behaviour.pause_seconds = 0
    async with live(other, query=named(had)) as client:
        had = await lost_after(client, "conversation.item.done", 2)
    async with returning(one, had) as client:
        assert (await client.next())["type"] == "input_audio_buffer.cleared"
        done = await client.respond()
        assert done["status"] == "completed"
        assert {event["response"]["id"] for event in client.events if "response" in event} == {done["id"]}
