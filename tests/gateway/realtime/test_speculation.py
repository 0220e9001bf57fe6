"""Answers begun at a pause, over a real socket before fakes of the stages: who gets them, what is left of others."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import soxr
from fastapi import FastAPI
from numpy.typing import NDArray

from antiphon.telemetry.metrics import Metrics
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings
from tests.gateway.conftest import Fakes, listening
from tests.gateway.realtime.live import Live, live, pcm, silence
from tests.gateway.realtime.test_sessions_with_fakes import DELTAS, SPOKEN_ORDER, TEXT

Spoken = tuple[NDArray[np.float32], int]
# Long enough for the detector to hear a pause, too short for it to end a turn.
PAUSE_SECONDS, REST_SECONDS = 0.35, 0.6


@dataclass
class Session:
    client: Live
    app: FastAPI
    fakes: Fakes
    metrics: Metrics
    # The question, from its first word to the end of its last.
    words: NDArray[np.float32]

    async def append(self, samples: NDArray[np.float32]) -> None:
        data = pcm(samples)
        for start in range(0, len(data), 4800):
            piece = base64.b64encode(data[start : start + 4800]).decode()
            await self.client.send("input_audio_buffer.append", audio=piece)

    async def pause(self) -> None:
        """Says the question and falls silent, for long enough that the answer is begun."""
        await self.append(np.concatenate([self.words, silence(PAUSE_SECONDS, 24_000)]))
        async with asyncio.timeout(5):
            while not self.fakes.talker.behaviour.calls_begun:  # noqa: ASYNC110 - fakes have no event for this
                await asyncio.sleep(0.005)

    async def rest(self) -> None:
        """Silence, until the turn has ended."""
        await self.append(silence(REST_SECONDS, 24_000))

    def counted(self, outcome: str) -> float:
        value = self.metrics.registry.get_sample_value("antiphon_speculative_turns_total", {"outcome": outcome})
        return value or 0.0


@asynccontextmanager
async def a_session(settings: GatewaySettings, fakes: Fakes, question: Spoken) -> AsyncIterator[Session]:
    metrics = Metrics()
    app = create_app(settings, fakes.stages(), metrics=metrics)
    samples = soxr.resample(question[0], question[1], 24_000)
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    async with listening(app) as url, live(url) as client:
        yield Session(client, app, fakes, metrics, samples[loud[0] : loud[-1]])


@pytest.fixture(autouse=True)
def without_preparations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only answers reach the fakes."""
    monkeypatch.setenv("ANTIPHON_REALTIME_PREPARES", "false")


@pytest.fixture
async def session(settings: GatewaySettings, fakes: Fakes, spoken_question: Spoken) -> AsyncIterator[Session]:
    async with a_session(settings, fakes, spoken_question) as opened:
        yield opened


def begun(fakes: Fakes) -> list[int]:
    return [fake.behaviour.calls_begun for fake in fakes.all]


async def test_the_answer_begun_at_the_pause_is_the_response(session: Session) -> None:
    client, fakes = session.client, session.fakes
    await session.pause()
    assert not any(event["type"].startswith("response") for event in client.events)
    await session.rest()
    done = (await client.until("response.done"))["response"]
    created = next(event for event in client.events if event["type"] == "response.created")
    assert [kind for kind in client.since(created) if kind not in DELTAS] == SPOKEN_ORDER
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": TEXT}]
    assert begun(fakes) == [1, 1, 1, 1], "it was computed once"
    assert (session.counted("used"), session.counted("wasted")) == (1, 0)
    await fakes.until_closed()


async def test_it_counts_once(session: Session) -> None:
    await session.pause()
    await session.rest()
    used = (await session.client.until("response.done"))["response"]["usage"]
    read = session.metrics.registry.get_sample_value
    assert (
        read("antiphon_tokens_total", {"direction": "output", "modality": "audio"})
        == (used["output_token_details"]["audio_tokens"])
    )
    assert read("antiphon_first_audio_seconds_count") == 1
    assert read("antiphon_realtime_turn_latency_seconds_count") == 1
    assert used["input_tokens"] > 0


async def test_nothing_is_told_before_the_turn_has_ended(session: Session) -> None:
    await session.pause()
    await asyncio.sleep(0.2)
    await session.client.send("conversation.item.retrieve", item_id="none")
    await session.client.until("error")
    assert [event["type"] for event in session.client.events] == [
        "session.created",
        "input_audio_buffer.speech_started",
        "error",
    ]


async def test_who_goes_on_to_speak_is_answered_for_all_he_said(session: Session) -> None:
    fakes = session.fakes
    fakes.talker.frames_after_text, fakes.talker.behaviour.pause_seconds = 10_000, 0.01
    await session.pause()
    await session.append(session.words)
    await fakes.until_closed()
    assert (session.counted("used"), session.counted("wasted")) == (0, 1)
    assert fakes.talker.behaviour.calls_finished == 0, "it was stopped and not waited for"
    fakes.talker.frames_after_text = 3
    await session.append(silence(PAUSE_SECONDS + REST_SECONDS, 24_000))
    done = (await session.client.until("response.done"))["response"]
    assert done["status"] == "completed"
    assert session.counted("used") == 1
    starts = [r.start.items[0].byte_count for r in fakes.encoders.behaviour.received if r.HasField("start")]
    assert len(starts) == 2
    assert starts[1] > starts[0] + len(session.words) * 2


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("session.update", {"session": {"type": "realtime", "instructions": "be brief"}}),
        (
            "conversation.item.create",
            {"item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "and"}]}},
        ),
    ],
)
async def test_what_is_changed_at_the_pause_is_part_of_the_answer(
    session: Session, kind: str, fields: dict[str, Any]
) -> None:
    await session.pause()
    await session.client.send(kind, **fields)
    await session.rest()
    assert (await session.client.until("response.done"))["response"]["status"] == "completed"
    assert (session.counted("used"), session.counted("wasted")) == (0, 1)
    prompts = [len(r.start.prompt.token_ids) for r in session.fakes.thinker.behaviour.received if r.HasField("start")]
    assert len(prompts) == 2
    assert prompts[1] > prompts[0]


async def test_a_user_who_speaks_interrupts_it_like_any_other(session: Session) -> None:
    session.fakes.talker.frames_after_text, session.fakes.talker.behaviour.pause_seconds = 10_000, 0.01
    await session.pause()
    await session.rest()
    await session.client.until("response.output_audio.delta")
    await session.append(session.words)
    done = (await session.client.until("response.done"))["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    await session.fakes.until_closed()


async def test_a_client_that_hangs_up_at_the_pause_leaves_nothing(session: Session) -> None:
    session.fakes.talker.frames_after_text, session.fakes.talker.behaviour.pause_seconds = 10_000, 0.01
    await session.pause()
    session.client.socket.transport.abort()
    await session.fakes.until_closed()
    assert not session.app.state.gate.turns


async def test_a_user_of_whom_nothing_more_is_heard_holds_nothing_for_long(
    settings: GatewaySettings, fakes: Fakes, spoken_question: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_REALTIME_HELD_TURN_SECONDS", "0.1")
    fakes.talker.frames_after_text, fakes.talker.behaviour.pause_seconds = 10_000, 0.01
    async with a_session(settings, fakes, spoken_question) as session:
        await session.pause()
        await fakes.until_closed()
        assert session.counted("wasted") == 1


@pytest.mark.parametrize(
    ("variable", "value"), [("ANTIPHON_REALTIME_SPECULATES", "false"), ("ANTIPHON_REALTIME_SPECULATIVE_LOAD", "0")]
)
async def test_without_it_nothing_is_begun_at_a_pause(
    settings: GatewaySettings,
    fakes: Fakes,
    spoken_question: Spoken,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    async with a_session(settings, fakes, spoken_question) as session:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.pause(), 0.5)
        await session.rest()
        assert (await session.client.until("response.done"))["response"]["status"] == "completed"
        assert begun(fakes) == [1, 1, 1, 1]
        assert session.counted("used") == session.counted("wasted") == 0
