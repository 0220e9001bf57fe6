"""OpenAI's own SDK, unmodified, talks with nano on real services: typed, spoken, interrupted, over the telephone."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent, ResponseDoneEvent

from services.gateway.realtime.sound_formats import encoded, pcm16_of
from tests.gateway.conftest import MODEL
from tests.gateway.realtime.live import pcm, silence

ANSWER = "The opposite of strong is weak."


@pytest.fixture
async def sdk(platform_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=platform_url, api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
async def live(sdk: AsyncOpenAI) -> AsyncIterator[AsyncRealtimeConnection]:
    async with sdk.realtime.connect(model=MODEL) as connection:
        yield connection


async def until(connection: AsyncRealtimeConnection, kind: str) -> list[Any]:
    """Events up to the first of this type."""
    events: list[RealtimeServerEvent] = []
    async for event in connection:
        assert event.type != "error", event
        events.append(event)
        if event.type == kind:
            return events
    raise AssertionError(f"{kind} did not come")


async def ask(connection: AsyncRealtimeConnection, text: str) -> None:
    content: Any = [{"type": "input_text", "text": text}]
    await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})


async def append(connection: AsyncRealtimeConnection, data: bytes, piece: int = 4800) -> None:
    for start in range(0, len(data), piece):
        await connection.input_audio_buffer.append(audio=base64.b64encode(data[start : start + piece]).decode())


def spoken(path: Path, *, quiet: float = 0.9, rate_hz: int = 24_000) -> bytes:
    samples, rate = soundfile.read(path, dtype="float32")
    whole = np.concatenate([silence(0.4, rate), samples, silence(quiet, rate)])
    return pcm(soxr.resample(whole, rate, rate_hz))


def transcript(events: list[Any]) -> str:
    done = events[-1]
    assert isinstance(done, ResponseDoneEvent)
    assert done.response.output is not None
    content = done.response.output[-1].content  # type: ignore[union-attr]
    assert content is not None
    return str(getattr(content[0], "transcript", None) or getattr(content[0], "text", ""))


def sound(events: list[Any]) -> bytes:
    return b"".join(base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta")


async def test_a_typed_question_is_answered_in_text_and_then_aloud(live: AsyncRealtimeConnection) -> None:
    await live.session.update(session={"type": "realtime", "output_modalities": ["text"]})
    await ask(live, "What color is blood?")
    await live.response.create()
    assert transcript(await until(live, "response.done")) == "Blood is red."
    await live.response.create(response={"output_modalities": ["audio"], "metadata": {"kept": "yes"}})
    events = await until(live, "response.done")
    assert events[-1].response.metadata == {"kept": "yes"}
    assert np.abs(np.frombuffer(sound(events), "<i2")).max() > 1000


async def test_a_spoken_question_is_answered_as_soon_as_it_ends(live: AsyncRealtimeConnection, nano: Path) -> None:
    transcription: Any = {"input": {"transcription": {"model": "gpt-4o-mini-transcribe"}}}
    await live.session.update(session={"type": "realtime", "audio": transcription})
    await append(live, spoken(nano / "examples" / "question.wav"))
    events = await until(live, "response.done")
    kinds = [event.type for event in events if not event.type.startswith("session")]
    assert kinds[:6] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    assert transcript(events) == ANSWER
    usage = events[-1].response.usage
    assert usage.input_token_details.audio_tokens > 10
    kind = "conversation.item.input_audio_transcription.completed"
    if kind not in kinds:
        events += await until(live, kind)
    written = next(event for event in events if event.type == kind)
    assert written.transcript.lower().rstrip(".?") == "the opposite of strong"
    assert written.usage.total_tokens > 0


async def test_a_recording_can_be_committed_by_hand(live: AsyncRealtimeConnection, nano: Path) -> None:
    turned_off: Any = {"input": {"turn_detection": None}}
    await live.session.update(session={"type": "realtime", "audio": turned_off, "output_modalities": ["text"]})
    await append(live, spoken(nano / "examples" / "question.wav"), piece=100_000)
    await live.input_audio_buffer.commit()
    await until(live, "conversation.item.done")
    await live.response.create()
    assert transcript(await until(live, "response.done")) == ANSWER


@pytest.mark.parametrize("law", ["audio/pcmu", "audio/pcma"])
async def test_a_question_and_its_answer_over_the_telephone(
    live: AsyncRealtimeConnection, nano: Path, law: str
) -> None:
    encoding: Any = law.removeprefix("audio/")
    telephone: Any = {"input": {"format": {"type": law}}, "output": {"format": {"type": law}}}
    await live.session.update(session={"type": "realtime", "audio": telephone})
    await append(live, encoded(spoken(nano / "examples" / "question.wav", rate_hz=8000), encoding), piece=800)
    events = await until(live, "response.done")
    assert "opposite" in transcript(events)
    heard = np.frombuffer(pcm16_of(sound(events), encoding, ""), "<i2")
    frames = events[-1].response.usage.output_token_details.audio_tokens
    assert abs(len(heard) - frames * 640) < 640
    assert np.abs(heard).max() > 1000


async def test_who_interrupts_is_answered_and_only_what_he_heard_was_said(
    live: AsyncRealtimeConnection, nano: Path
) -> None:
    await ask(live, "Count from one to ten.")
    await live.response.create()
    first = await until(live, "response.output_audio.delta")
    item_id = first[-1].item_id
    await append(live, spoken(nano / "examples" / "question.wav"))
    events = first + await until(live, "response.done")
    if events[-1].response.status == "completed":  # a short answer may be over before a word was heard of the user
        pytest.skip("the answer ended before it could be interrupted")
    assert events[-1].response.status_details.reason == "turn_detected"
    await live.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=50)
    events = await until(live, "response.done")
    assert transcript(events) == ANSWER
    await live.conversation.item.retrieve(item_id=item_id)
    kept = (await until(live, "conversation.item.retrieved"))[-1].item
    assert kept.content[0].transcript == ""


async def test_an_answer_beside_the_conversation_leaves_it_alone(live: AsyncRealtimeConnection) -> None:
    await ask(live, "My name is Alice.")
    content: Any = [{"type": "input_text", "text": "What color is blood?"}]
    aside: Any = [{"type": "message", "role": "user", "content": content}]
    await live.response.create(response={"conversation": "none", "input": aside, "output_modalities": ["text"]})
    events = await until(live, "response.done")
    assert transcript(events) == "Blood is red."
    assert [event.type for event in events].count("conversation.item.added") == 1
    assert events[-1].response.conversation_id is None


async def test_the_result_of_a_call_is_part_of_the_conversation(live: AsyncRealtimeConnection) -> None:
    await ask(live, "What color is blood?")
    await live.conversation.item.create(
        item={"type": "function_call", "name": "look", "call_id": "c1", "arguments": json.dumps({"at": "blood"})}
    )
    await live.conversation.item.create(item={"type": "function_call_output", "call_id": "c1", "output": "red"})
    await live.response.create(response={"output_modalities": ["text"]})
    events = await until(live, "response.done")
    items = [event.item for event in events if event.type == "conversation.item.done"]
    assert [item.type for item in items] == ["message", "function_call", "function_call_output", "message"]
    assert events[-1].response.status == "completed"


async def test_a_cancelled_answer_and_a_mistake_end_nothing(live: AsyncRealtimeConnection) -> None:
    await ask(live, "Count from one to ten.")
    await live.response.create()
    await until(live, "response.created")
    await live.response.cancel()
    events = await until(live, "response.done")
    assert events[-1].response.status_details.reason == "client_cancelled"
    await live.send({"type": "response.cancel", "event_id": "again"})
    error: Any = await live.recv()
    assert (error.type, error.error.code, error.error.event_id) == ("error", "response_cancel_not_active", "again")
    await ask(live, "What color is blood?")
    await live.response.create(response={"output_modalities": ["text"]})
    assert (await until(live, "response.done"))[-1].response.status == "completed"


async def test_an_unknown_model_is_told_before_the_upgrade(sdk: AsyncOpenAI) -> None:
    with pytest.raises(Exception, match="404"):
        async with sdk.realtime.connect(model="gpt-9"):
            pass


async def test_a_client_secret_opens_a_session(sdk: AsyncOpenAI, platform_url: str) -> None:
    made = await sdk.realtime.client_secrets.create(session={"type": "realtime", "output_modalities": ["text"]})
    assert made.session.type == "realtime"
    async with (
        AsyncOpenAI(base_url=platform_url, api_key=made.value) as browser,
        browser.realtime.connect(model=MODEL) as live,
    ):
        created = await live.recv()
        assert created.type == "session.created"
        await ask(live, "What color is blood?")
        await live.response.create()
        assert transcript(await until(live, "response.done")) == "Blood is red."
