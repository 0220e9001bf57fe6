"""While listeners wait for sound that is due, nobody new is let in; once they are served, everybody is."""

import asyncio
import time

import httpx
import pytest
from fastapi import FastAPI

from services.gateway.config import GatewaySettings
from services.gateway.turns.watch import TurnWatch
from tests.gateway.conftest import Fakes, assert_envelope, body, listening, spoken
from tests.gateway.test_disconnect import until_open
from tests.gateway.turns import a_watch

FIRST_SOUND_SECONDS = 0.2


@pytest.fixture
def settings(settings: GatewaySettings) -> GatewaySettings:
    waits = {"first_sound_seconds": FIRST_SOUND_SECONDS, "late_seconds": 0.05}
    return settings.model_copy(update={"sheds_load": True, **waits})


async def refused_while_late(app: FastAPI, fakes: Fakes, *, stream: bool) -> httpx.Response:
    """How one more is answered while two wait for a Talker that is slow."""
    fakes.talker.behaviour.pause_seconds = 5.0
    async with listening(app) as url, httpx.AsyncClient(base_url=url) as client:
        turns = [asyncio.create_task(_post(client, spoken(stream=stream))) for _ in range(2)]
        await until_open(fakes, 2 * 2)
        await asyncio.sleep(FIRST_SOUND_SECONDS + 0.8)
        began = time.perf_counter()
        answer = await client.post("/v1/chat/completions", json=body())
        assert time.perf_counter() - began < 2.5, "while the others wait for 5 s"
        for turn in turns:
            turn.cancel()
        await asyncio.gather(*turns, return_exceptions=True)
    return answer


async def _post(client: httpx.AsyncClient, asked: dict[str, object]) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=asked)


async def test_nobody_is_let_in_while_listeners_wait(app: FastAPI, fakes: Fakes) -> None:
    answer = await refused_while_late(app, fakes, stream=True)
    assert "is full" in assert_envelope(answer, 503)
    assert answer.headers["retry-after"] == "1"


async def test_answers_that_nobody_listens_to_yet_keep_nobody_out(app: FastAPI, fakes: Fakes) -> None:
    assert (await refused_while_late(app, fakes, stream=False)).status_code == 200


class TestWithoutShedding:
    @pytest.fixture
    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        return settings.model_copy(update={"sheds_load": False})

    async def test_everybody_is_let_in(self, app: FastAPI, fakes: Fakes) -> None:
        assert (await refused_while_late(app, fakes, stream=True)).status_code == 200


def test_a_listener_is_late_from_the_moment_his_sound_is_due() -> None:
    listener: TurnWatch = a_watch()
    now = time.monotonic()
    assert listener.late_seconds(now + 100) == 0.0, "nobody listens"
    listener.listened_to(first_sound_seconds=1.0)
    assert listener.late_seconds(now + 0.9) == 0.0
    assert listener.late_seconds(now + 3.0) == pytest.approx(2.0, abs=0.1)
    listener.packet_sent(has_sound=True, sample_count=48_000)
    assert listener.late_seconds(now + 1.9) == 0.0
    assert listener.late_seconds(now + 3.0) == pytest.approx(1.0, abs=0.1)
