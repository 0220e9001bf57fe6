"""A whole LiveKit agent, unmodified, in a room of one microphone and one loudspeaker, on live sessions with nano."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

import aiohttp
import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, function_tool
from livekit.agents.voice.io import AudioInput, AudioOutput, AudioOutputCapabilities
from livekit.plugins.openai.realtime import RealtimeModel

from tests.clients.conftest import ROOM_RATE_HZ, frames
from tests.gateway.conftest import MODEL

ANSWER = "The opposite of strong is weak."
PATIENCE_SECONDS = 30


class Microphone(AudioInput):
    def __init__(self) -> None:
        super().__init__(label="microphone")
        self._frames: asyncio.Queue[rtc.AudioFrame] = asyncio.Queue()

    def hear(self, pcm16: bytes) -> None:
        for frame in frames(pcm16):
            self._frames.put_nowait(frame)

    async def __anext__(self) -> rtc.AudioFrame:
        return await self._frames.get()


class Loudspeaker(AudioOutput):
    """Plays at once; a slow one plays until it is told to stop, and from then on at once, too."""

    def __init__(self, *, is_slow: bool) -> None:
        super().__init__(label="loudspeaker", capabilities=AudioOutputCapabilities(pause=False), sample_rate=24_000)
        self._is_slow = is_slow
        self.seconds = self._unplayed_seconds = 0.0
        self.began, self.stopped = asyncio.Event(), asyncio.Event()

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        self.seconds += frame.duration
        self._unplayed_seconds += frame.duration
        self.began.set()

    def flush(self) -> None:
        super().flush()
        if not self._is_slow:
            self._finish(self._unplayed_seconds, interrupted=False)

    def clear_buffer(self) -> None:
        self._is_slow = False
        self.stopped.set()
        self._finish(self._unplayed_seconds / 2, interrupted=True)

    def _finish(self, position: float, *, interrupted: bool) -> None:
        if self._pending_playback_count:
            self.on_playback_finished(playback_position=position, interrupted=interrupted)
        self._unplayed_seconds = 0.0


@function_tool
async def paint(color: Literal["red", "blue"]) -> str:
    """Paints the wall."""
    return f"The wall is {color}."


class Room:
    def __init__(self, session: AgentSession[None], microphone: Microphone, loudspeaker: Loudspeaker) -> None:
        self.session, self.microphone, self.loudspeaker = session, microphone, loudspeaker
        self.said: list[tuple[str, str]] = []
        self.errors: list[Any] = []
        session.on("conversation_item_added", self._note)
        session.on("error", self.errors.append)

    def _note(self, event: Any) -> None:
        if event.item.type == "message":
            self.said.append((event.item.role, event.item.text_content or ""))

    async def until_said(self, count: int) -> list[tuple[str, str]]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.said) < count:  # noqa: ASYNC110 - for as long as it takes
                await asyncio.sleep(0.01)
        return self.said


@pytest.fixture
def is_slow() -> bool:
    """Its loudspeaker."""
    return False


@pytest.fixture
async def room(platform_url: str, http_session: aiohttp.ClientSession, is_slow: bool) -> AsyncIterator[Room]:
    model = RealtimeModel(model=MODEL, base_url=platform_url, api_key="unused", http_session=http_session)
    async with AgentSession[None](llm=model, max_tool_steps=0) as session:
        room = Room(session, Microphone(), Loudspeaker(is_slow=is_slow))
        session.input.audio, session.output.audio = room.microphone, room.loudspeaker
        await session.start(Agent(instructions="You are a helpful voice assistant."), record=False)
        yield room
    assert room.errors == []


async def test_a_spoken_question_is_answered_in_the_room(room: Room, spoken_question: bytes) -> None:
    room.microphone.hear(spoken_question)
    asked, answered = await room.until_said(2)
    assert asked == ("user", "The opposite of strong.")
    assert answered == ("assistant", ANSWER)
    assert room.loudspeaker.seconds > 1


async def test_a_typed_question_runs_the_agent(room: Room) -> None:
    result = await asyncio.wait_for(room.session.run(user_input="What color is blood?"), PATIENCE_SECONDS)
    said = result.expect.next_event().is_message(role="assistant")
    assert said.event().item.text_content == "Blood is red."
    result.expect.no_more_events()


async def test_an_agent_calls_its_function_and_says_what_came_of_it(room: Room) -> None:
    await room.session.current_agent.update_tools([paint])
    choice: Any = {"type": "function", "function": {"name": "paint"}}
    speech = room.session.generate_reply(user_input="What color is blood?", tool_choice=choice)
    await asyncio.wait_for(speech.wait_for_playout(), PATIENCE_SECONDS)
    assert [item.type for item in speech.chat_items] == ["function_call", "function_call_output", "message"]
    called, output, answer = speech.chat_items
    assert output.call_id == called.call_id
    assert output.output in {"The wall is red.", "The wall is blue."}
    assert answer.text_content


@pytest.mark.parametrize("is_slow", [True])
async def test_who_speaks_up_is_heard_at_once(room: Room, spoken_question: bytes) -> None:
    room.session.generate_reply(user_input="Count from one to ten.")
    await asyncio.wait_for(room.loudspeaker.began.wait(), PATIENCE_SECONDS)
    one_second = 2 * ROOM_RATE_HZ
    room.microphone.hear(spoken_question[:one_second])
    await asyncio.wait_for(room.loudspeaker.stopped.wait(), PATIENCE_SECONDS)
    room.microphone.hear(spoken_question[one_second:])
    said = await room.until_said(4)
    assert said[-1] == ("assistant", ANSWER)
    assert ("user", "The opposite of strong.") in said
    cut_off = [item for item in room.session.history.messages() if item.interrupted]
    assert [(item.role, (item.text_content or "").startswith("One, two")) for item in cut_off] == [("assistant", True)]
