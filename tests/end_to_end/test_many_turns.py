"""Many turns at once, and turns that are left: nothing changes for anybody else, and nothing stays behind."""

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.end_to_end.conversations import openai_messages, sound, user
from tests.end_to_end.platform import Platform
from tests.end_to_end.recorded_stages import RecordedTurn

QUESTIONS = [
    "What is the capital of France?",
    "what is seven plus five",
    "Count to four.",
    "What is the opposite of hot?",
    "say apple river",
    "What sound does a cow make?",
    "Hello!",
    "which day is after monday",
]
VOICES = ["ethan", "chelsie"]
TURNS_AT_ONCE = 64
CANCELLATIONS = 20


def ask(platform: Platform, question: str, voice: str) -> RecordedTurn:
    # nano's codec wants no repetition penalty; greedy, so that every run is the same.
    return platform.speak([user(question)], voice=voice, talker_repetition_penalty=1.0, max_completion_tokens=48)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_64_turns_at_once_say_what_each_says_alone(nano_platform: Platform) -> None:
    asked = [(question, voice) for question in QUESTIONS for voice in VOICES]
    alone = {pair: ask(nano_platform, *pair) for pair in asked}
    with ThreadPoolExecutor(TURNS_AT_ONCE) as threads:
        pairs = [asked[index % len(asked)] for index in range(TURNS_AT_ONCE)]
        together = list(threads.map(lambda pair: ask(nano_platform, *pair), pairs))
    for pair, turn in zip(pairs, together, strict=True):
        assert turn.text_ids == alone[pair].text_ids, pair
        assert turn.codes == alone[pair].codes, pair


async def leave_after(platform: Platform, seconds: float, body: dict[str, object]) -> int:
    """Reads the stream for so long and hangs up; gives the bytes that had come."""
    received = 0
    async with httpx.AsyncClient(timeout=60) as client:
        try:
            async with asyncio.timeout(seconds):
                async with client.stream(
                    "POST", f"{platform.parts.base_url}/v1/chat/completions", json=body
                ) as response:
                    async for chunk in response.aiter_bytes():
                        received += len(chunk)
        except TimeoutError:
            pass
    return received


@pytest.mark.slow
def test_a_turn_left_at_any_point_leaves_nothing_behind(nano_platform: Platform) -> None:
    body = {
        "model": nano_platform.checkpoint.name,
        "messages": openai_messages([user(sound(1.5), "count to twelve")]),
        "modalities": ["text", "audio"],
        "audio": {"voice": "ethan", "format": "pcm16"},
        "stream": True,
    }
    asyncio.run(leave_after(nano_platform, 30, body))  # a whole one first: what is opened once stays open
    nano_platform.wait_until_idle()
    tasks_before = len(nano_platform.task_names())
    chance = random.Random(11)  # noqa: S311 where to leave, not a secret
    left_early = 0
    for _ in range(CANCELLATIONS):
        started = time.monotonic()
        asyncio.run(leave_after(nano_platform, chance.uniform(0.005, 1.5), body))
        left_early += time.monotonic() - started < 1.5
        nano_platform.wait_until_idle()
        nano_platform.wait_for_tasks(tasks_before)
    assert left_early > CANCELLATIONS // 2


def test_first_sound_leaves_after_one_frame(nano_platform: Platform) -> None:
    turn = ask(nano_platform, "What is the capital of Italy?", "aiden")
    assert turn.frames_at_first_sound == 1
    assert len(turn.samples[0]) == 1365, "one frame gives 1920 samples less the codec's lookahead of 555"
