"""Where a client cannot come back to its last event it is told what to do; and what live sessions are kept in may go
away for a while, but not before them."""

import asyncio
import base64
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from antiphon.errors import Unavailable
from antiphon.tenancy.caller import ANONYMOUS_TENANT
from services.gateway.config import GatewaySettings
from services.gateway.realtime import session_setup
from tests.cutting_proxy import cutting_proxy
from tests.gateway.conftest import Fakes
from tests.gateway.realtime.live import live, pcm
from tests.gateway.realtime.returning import (
    Two,
    ask,
    caught_up,
    content,
    gateways,
    rest,
    returning,
    said,
    undisturbed,
    until_closed,
)
from tests.redis_server import RedisServer, running_redis

AUDIO = "response.output_audio.delta"


async def test_who_was_away_too_long_is_told_what_to_do(
    settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_SESSIONS_EVENT_COUNT", "5")
    async with gateways(settings, fakes.stages(), redis_server.url) as ((url, _),):
        had = await undisturbed(url)
        async with returning(url, had[:-6]) as client:
            error = (await client.next())["error"]
            assert (error["code"], error["param"]) == ("last_event_id_expired", "last_event_id")
            closed = await until_closed(client)
            assert (closed.code, "'session_id' alone" in closed.reason) == (1008, True)
        async with returning(url, had[:-5]) as client:
            assert content(await client.next()) == content(had[-5])
        async with live(url, query=f"session_id={had[0]['session']['id']}") as client:
            assert (await client.next())["item"]["id"] == "question"


async def test_who_comes_back_while_what_he_missed_cannot_be_read_is_told_to_try_again(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("The storage of sessions cannot be reached. Try again in a moment.")

    (one, _), _ = two
    had = await undisturbed(one)
    with monkeypatch.context() as broken:
        broken.setattr(session_setup, "missed_since", away)
        async with returning(one, had[:-5]) as client:
            assert (await client.next())["error"]["code"] == "unavailable"
            assert (await until_closed(client)).code == 1013
    async with returning(one, had[:-5]) as client:
        assert content(await client.next()) == content(had[-5])


async def test_an_event_that_never_was_is_one_of_those_that_are_gone(two: Two) -> None:
    (one, _), _ = two
    had = await undisturbed(one)
    never = had[-1] | {"event_id": had[-1]["event_id"].rpartition("_")[0] + "_999"}
    async with returning(one, [had[0], never]) as client:
        assert (await client.next())["error"]["code"] == "last_event_id_expired"


@pytest.mark.parametrize("last", ["event_1", "", "event_" + "0" * 24 + "_1"])
async def test_an_id_of_something_else_is_refused(two: Two, last: str) -> None:
    (one, _), _ = two
    had = await undisturbed(one)
    with pytest.raises(InvalidStatus) as raised:
        async with returning(one, [had[0], {"event_id": last}]):
            pass
    error = json.loads(raised.value.response.body)["error"]
    assert (raised.value.response.status_code, error["param"]) == (400, "last_event_id")


async def test_a_response_ends_although_its_redis_does_not_answer(
    settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer
) -> None:
    fakes.talker.frames_after_text = 40
    fakes.talker.behaviour.pause_seconds = 0.02
    async with (
        cutting_proxy(redis_server.port) as proxy,
        gateways(settings, fakes.stages(), proxy.url, redis_server.url) as ((one, app), (other, _)),
        live(one) as client,
    ):
        whole = await undisturbed(other)
        await ask(client)
        await client.until(AUDIO)
        proxy.answers_to_cut = 1 << 30
        assert (await rest(client))["status"] == "completed"
        assert said(client.events) == said(whole)
        proxy.answers_to_cut = 0
        await client.say("and now it is back", id="back")
        had = await caught_up(client, app)
        client.socket.transport.abort()
        async with returning(other, had) as back:
            assert (await back.next())["type"] == "input_audio_buffer.cleared"


async def test_a_response_ends_while_its_redis_hangs_and_is_kept_afterwards(
    settings: GatewaySettings, fakes: Fakes, tmp_path: Path
) -> None:
    fakes.talker.frames_after_text = 40
    fakes.talker.behaviour.pause_seconds = 0.01
    with running_redis(tmp_path) as redis:
        async with gateways(settings, fakes.stages(), redis.url, redis.url) as ((one, app), (other, _)):
            whole = await undisturbed(other)
            async with live(one) as client:
                await ask(client)
                await client.until(AUDIO)
                os.kill(redis.process_id, signal.SIGSTOP)
                try:
                    assert (await rest(client))["status"] == "completed"
                    assert said(client.events) == said(whole)
                finally:
                    os.kill(redis.process_id, signal.SIGCONT)
                await client.say("and now it is back", id="back")
                had = await caught_up(client, app)
            async with returning(other, had[:20]) as back:
                for _ in had[20:]:
                    await back.next()
                assert [content(event) for event in back.events] == [content(event) for event in had]


async def test_media_live_as_long_as_their_session_is_kept(
    settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_SESSIONS_MEDIA_SECONDS", "1.2")
    async with gateways(settings, fakes.stages(), redis_server.url) as ((url, app),), live(url) as client:
        sound = {"type": "input_audio", "audio": base64.b64encode(pcm(np.ones(2400, np.float32) / 2)).decode()}
        item = {"type": "message", "id": "spoken", "role": "user", "content": [sound]}
        await client.ask("conversation.item.create", "conversation.item.done", item=item)
        (content_hash,) = [
            part.media
            for kept in (
                await app.state.sessions.conversations.load(ANONYMOUS_TENANT, client.events[0]["session"]["id"])
            ).conversation.items
            for part in kept.parts
        ]
        key = f"antiphon:{{{ANONYMOUS_TENANT}}}:medium:{content_hash}"
        left = []
        for _ in range(8):
            await client.ask("input_audio_buffer.clear", "input_audio_buffer.cleared")
            left.append(int(redis_server.ask("PTTL", key).lstrip(":")))
            await asyncio.sleep(0.3)
        assert min(left) > 0, "used again before it would be forgotten"
