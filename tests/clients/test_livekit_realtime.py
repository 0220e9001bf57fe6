"""LiveKit's plugin for OpenAI's realtime API, unmodified, holds live sessions with nano.

No LiveKit server is needed: the plugin is what a LiveKit agent gives its audio to, and gets audio from.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import numpy as np
import pytest
from livekit import rtc
from livekit.agents import function_tool, llm
from livekit.plugins.openai.realtime import RealtimeModel, RealtimeSession
from openai.types.realtime import realtime_audio_input_turn_detection as detection
from PIL import Image

from tests.clients.conftest import frames
from tests.gateway.conftest import MODEL

ANSWER = "The opposite of strong is weak."
PATIENCE_SECONDS = 30

OpenSession = Callable[..., RealtimeSession]


@dataclass(frozen=True)
class Answer:
    """What a LiveKit agent gets of one response. sound: 24 kHz."""

    text: str
    sound: bytes
    modalities: tuple[str, ...]
    calls: tuple[llm.FunctionCall, ...]
    message_id: str


class Said:
    """The events of a session by their type, and its errors."""

    def __init__(self, session: RealtimeSession) -> None:
        self.events: list[dict[str, Any]] = []
        self.errors: list[Any] = []
        self.generations: asyncio.Queue[llm.GenerationCreatedEvent] = asyncio.Queue()
        self.transcripts: list[str] = []
        self.reconnected = asyncio.Event()
        session.on("openai_server_event_received", self.events.append)
        session.on("error", self.errors.append)
        session.on("generation_created", self.generations.put_nowait)
        session.on("input_audio_transcription_completed", lambda event: self.transcripts.append(event.transcript))
        session.on("session_reconnected", lambda _: self.reconnected.set())

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():  # noqa: ASYNC110 - the plugin has no event for this
                await asyncio.sleep(0.01)


async def whole(generation: llm.GenerationCreatedEvent) -> Answer:
    text, sound, modalities, message_id = "", b"", (), ""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for message in generation.message_stream:
            message_id = message.message_id
            text = "".join([str(piece) async for piece in message.text_stream])
            sound = b"".join([bytes(frame.data) async for frame in message.audio_stream])
            modalities = tuple(await message.modalities)
        calls = tuple([call async for call in generation.function_stream])
    return Answer(text, sound, modalities, calls, message_id)


async def tell(session: RealtimeSession, *messages: tuple[Literal["user", "assistant"], str]) -> None:
    """Added to what the conversation holds."""
    context = session.chat_ctx.copy()
    for role, text in messages:
        context.add_message(role=role, content=text)
    await session.update_chat_ctx(context)


async def ask(session: RealtimeSession, text: str, **options: Any) -> Answer:
    await tell(session, ("user", text))
    return await whole(await session.generate_reply(**options))


def speak(session: RealtimeSession, pcm16: bytes) -> None:
    for frame in frames(pcm16):
        session.push_audio(frame)


@pytest.fixture
async def open_session(
    platform_url: str, http_session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[OpenSession]:
    """Makes sessions, with the plugin's own defaults but for what is given; it complained of nothing at the end."""
    opened: list[RealtimeSession] = []

    def open_one(**options: Any) -> RealtimeSession:
        model = RealtimeModel(
            model=MODEL, base_url=platform_url, api_key="unused", http_session=http_session, **options
        )
        opened.append(model.session())
        return opened[-1]

    yield open_one
    for session in opened:
        await session.aclose()
    complaints = [record for record in caplog.get_records("call") if record.name.startswith("livekit")]
    assert [record.message for record in complaints if record.levelno >= logging.WARNING] == []


async def test_a_typed_conversation_is_answered_aloud(open_session: OpenSession) -> None:
    session = open_session()
    said = Said(session)
    measured: list[Any] = []
    session.on("metrics_collected", measured.append)
    await tell(session, ("user", "My name is Emma."), ("assistant", "Nice to meet you, Emma."))
    answer = await ask(session, "What is my name?")
    assert answer.text == "Your name is Emma."
    assert answer.modalities == ("audio", "text")
    assert np.abs(np.frombuffer(answer.sound, "<i2")).max() > 1000
    assert [item.text_content for item in session.chat_ctx.messages()][-1] == answer.text
    assert measured[-1].input_tokens > 0
    assert measured[-1].output_token_details.audio_tokens == round(len(answer.sound) / 2 / 1920)
    assert said.errors == []


async def test_instructions_name_the_agent(open_session: OpenSession) -> None:
    session = open_session(modalities=["text"])
    await session.update_instructions("Your name is Emma.")
    answer = await ask(session, "What is your name?")
    assert (answer.text, answer.modalities, answer.sound) == ("My name is Emma.", ("text",), b"")


@pytest.mark.parametrize(
    "turns",
    [{}, {"turn_detection": detection.ServerVad(type="server_vad", silence_duration_ms=400)}],
    ids=["semantic_vad", "server_vad"],
)
async def test_a_spoken_question_is_heard_written_down_and_answered(
    open_session: OpenSession, spoken_question: bytes, turns: dict[str, Any]
) -> None:
    session = open_session(**turns)
    said = Said(session)
    speak(session, spoken_question)
    answer = await whole(await asyncio.wait_for(said.generations.get(), PATIENCE_SECONDS))
    assert answer.text == ANSWER
    assert len(answer.sound) > 24_000
    await said.until(lambda: said.transcripts)
    assert [transcript.lower().rstrip(".?") for transcript in said.transcripts] == ["the opposite of strong"]
    assert said.errors == []


async def test_a_recording_is_committed_by_hand(open_session: OpenSession, spoken_question: bytes) -> None:
    session = open_session(turn_detection=None, modalities=["text"])
    speak(session, spoken_question)
    session.commit_audio()
    answer = await whole(await session.generate_reply())
    assert answer.text == ANSWER


async def test_what_a_camera_sees_is_described(open_session: OpenSession, nano: Path) -> None:
    session = open_session(modalities=["text"])
    picture = Image.open(nano / "examples" / "image.png").convert("RGBA")
    session.push_video(rtc.VideoFrame(*picture.size, rtc.VideoBufferType.RGBA, picture.tobytes()))
    said = Said(session)
    await said.until(lambda: said.of("conversation.item.added"))
    answer = await ask(session, "Describe the image.")
    assert answer.text == "I see a purple square."


async def test_a_function_is_called_and_its_result_goes_back(open_session: OpenSession) -> None:
    @function_tool
    async def paint(color: Literal["red", "blue"], coats: Literal[1, 2]) -> str:
        """Paints the wall."""
        return f"{coats} {color}"

    session = open_session(modalities=["text"])
    said = Said(session)
    await session.update_tools([paint])
    forced: llm.ToolChoice = {"type": "function", "function": {"name": "paint"}}
    [call] = (await ask(session, "What color is blood?", tool_choice=forced)).calls
    assert call.name == "paint"
    result = await llm.execute_function_call(
        llm.FunctionToolCall(call_id=call.call_id, name=call.name, arguments=call.arguments), session.tools
    )
    assert result.fnc_call_out is not None
    assert result.fnc_call_out.output in {"1 red", "2 red", "1 blue", "2 blue"}
    context = session.chat_ctx.copy()
    context.insert(result.fnc_call_out)
    await session.update_chat_ctx(context)
    answer = await whole(await session.generate_reply(tool_choice="none"))
    assert answer.calls == ()
    assert answer.text
    kinds = [item.type for item in session.chat_ctx.items]
    assert kinds == ["message", "function_call", "function_call_output", "message"]
    assert said.errors == []


async def test_who_interrupts_is_answered_and_the_rest_is_taken_back(
    open_session: OpenSession, spoken_question: bytes
) -> None:
    session = open_session()
    said = Said(session)
    await tell(session, ("user", "Count from one to ten."))
    await session.generate_reply()
    generation = await asyncio.wait_for(said.generations.get(), PATIENCE_SECONDS)
    message = await anext(aiter(generation.message_stream))
    await anext(aiter(message.audio_stream))
    speak(session, spoken_question)
    answer = await whole(await asyncio.wait_for(said.generations.get(), PATIENCE_SECONDS))
    assert answer.text == ANSWER
    [counted, answered] = said.of("response.done")
    assert (counted["response"]["status"], answered["response"]["status"]) == ("cancelled", "completed")
    assert counted["response"]["status_details"]["reason"] == "turn_detected"
    session.truncate(message_id=message.message_id, modalities=["audio"], audio_end_ms=50)
    await said.until(lambda: said.of("conversation.item.truncated"))
    assert said.of("conversation.item.truncated")[0]["item_id"] == message.message_id
    assert said.errors == []


async def test_a_reply_is_stopped_by_its_client_and_the_next_one_is_whole(open_session: OpenSession) -> None:
    session = open_session()
    said = Said(session)
    await tell(session, ("user", "Count from one to ten."))
    generation = await session.generate_reply()
    session.interrupt()
    await whole(generation)
    [stopped] = said.of("response.done")
    assert stopped["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert (await ask(session, "What color is blood?")).text == "Blood is red."
    assert said.errors == []


async def test_an_edited_conversation_is_the_one_that_is_answered(open_session: OpenSession) -> None:
    session = open_session(modalities=["text"])
    await tell(session, ("user", "My name is Emma."), ("assistant", "Nice to meet you, Emma."))
    context = session.chat_ctx.copy()
    context.items.clear()
    context.add_message(role="user", content="My name is Alice.")
    context.add_message(role="assistant", content="Nice to meet you, Alice.")
    await session.update_chat_ctx(context)
    assert (await ask(session, "What is my name?")).text == "Your name is Alice."


async def test_a_session_that_is_opened_anew_goes_on_with_what_was_said(open_session: OpenSession) -> None:
    """The plugin leaves each connection after some time, and tells the next one the conversation."""
    session = open_session(modalities=["text"], max_session_duration=0.5)
    said = Said(session)
    await tell(session, ("user", "My name is Emma."), ("assistant", "Nice to meet you, Emma."))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await said.reconnected.wait()
    await said.until(lambda: len(session.chat_ctx.items) == 2)
    assert (await ask(session, "What is my name?")).text == "Your name is Emma."
    assert len(said.of("session.created")) >= 2
    assert said.errors == []
