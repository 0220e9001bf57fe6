"""What fails when a client comes back is told to it, and its session goes on."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI

from antiphon.errors import AntiphonError, InternalError, Unavailable
from services.gateway.answer_journal import AnswerJournals
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes
from tests.gateway.realtime.live import live
from tests.gateway.realtime.returning import ask, gateways, lost_after, rest, returning
from tests.redis_server import RedisServer

AUDIO = "response.output_audio.delta"
Two = tuple[tuple[str, FastAPI], ...]


@pytest.fixture
async def two(settings: GatewaySettings, fakes: Fakes, redis_server: RedisServer) -> AsyncIterator[Two]:
    fakes.talker.frames_after_text = 40
    async with gateways(settings, fakes.stages(), redis_server.url, redis_server.url) as found:
        yield found


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
