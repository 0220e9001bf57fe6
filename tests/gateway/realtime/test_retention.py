"""What of a long conversation a prompt holds: by counts alone, and over a real socket before fakes of the stages."""

from dataclasses import replace
from typing import Any

import pytest

from services.gateway.realtime.config import RealtimeSettings
from services.gateway.realtime.core.items import (
    AssistantItem,
    CallItem,
    CallOutputItem,
    InputSound,
    InputText,
    Item,
    OutputText,
    SystemItem,
    UserItem,
)
from services.gateway.realtime.core.response import Truncation
from services.gateway.realtime.retention import PromptBounds, Retention
from tests.gateway.conftest import Fakes
from tests.gateway.realtime.live import live
from tests.gateway.realtime.sessions import OPTIONS, a_message

WRITTEN = replace(OPTIONS, speaks=False, max_answer_tokens=100)
RATIO = replace(WRITTEN, truncation=Truncation(0.5))
# 900 are left to a prompt.
BOUNDS = PromptBounds(context_tokens=1000, answer_tokens=100, talker_rows=500, speech_rows=100)


def a_retention(**settings: Any) -> Retention:
    return Retention(RealtimeSettings(**settings), BOUNDS, len)


def messages(*lengths: int) -> list[Item]:
    return [a_message(f"m{number}", "x" * length) for number, length in enumerate(lengths)]


def ids(items: list[Item]) -> list[str]:
    return [item.id for item in items]


def test_all_is_kept_while_it_fits() -> None:
    assert ids(a_retention().kept(WRITTEN, messages(400, 400))) == ["m0", "m1"]


def test_the_oldest_are_left_out_of_what_does_not_fit() -> None:
    assert ids(a_retention().kept(WRITTEN, messages(300, 400, 400))) == ["m1", "m2"]


def test_a_longer_answer_leaves_less_room() -> None:
    items = messages(400, 400)
    assert ids(a_retention().kept(replace(WRITTEN, max_answer_tokens=300), items)) == ["m1"]


def test_instructions_take_room_and_are_kept() -> None:
    assert ids(a_retention().kept(replace(WRITTEN, instructions="i" * 200), messages(400, 400))) == ["m1"]


def test_a_spoken_answer_needs_room_in_the_talker() -> None:
    spoken = replace(WRITTEN, speaks=True)
    assert ids(a_retention().kept(spoken, messages(300, 300))) == ["m1"]


def test_sound_is_counted_as_the_encoders_do() -> None:
    sound = UserItem("s", (InputSound(bytes(48_000 * 60), "pcm"),))
    assert ids(a_retention().kept(WRITTEN, [*messages(80), sound])) == ["m0", "s"]
    assert ids(a_retention().kept(WRITTEN, [*messages(120), sound])) == ["s"]


def test_the_newest_is_asked_whatever_it_takes() -> None:
    assert ids(a_retention().kept(WRITTEN, messages(10, 5000))) == ["m1"]


def test_what_a_system_item_says_is_kept() -> None:
    system = SystemItem("s", (InputText("be brief"),))
    assert ids(a_retention().kept(WRITTEN, [system, *messages(500, 800)])) == ["s", "m1"]


def test_what_a_call_gave_goes_with_the_call() -> None:
    call, output = CallItem("c", "call", "look", "x" * 500), CallOutputItem("o", "call", "sunny")
    said = AssistantItem("a", (OutputText("y" * 500),))
    assert ids(a_retention().kept(WRITTEN, [call, output, said])) == ["a"]


def test_nothing_is_left_out_where_that_is_disabled() -> None:
    disabled = replace(WRITTEN, truncation=Truncation(None))
    assert ids(a_retention(prompt_media=1).kept(disabled, messages(900, 900))) == ["m0", "m1"]


def test_by_a_ratio_more_is_left_out_at_once_and_prompts_begin_alike_until_it_is_full_again() -> None:
    retention, items = a_retention(), messages(200, 200, 200, 200, 200)
    assert ids(retention.kept(RATIO, items)) == ["m3", "m4"]
    items += [a_message("m5", "x" * 200)]
    assert ids(retention.kept(RATIO, items)) == ["m3", "m4", "m5"]
    items += [a_message("m6", "x" * 300)]
    assert ids(retention.kept(RATIO, items)) == ["m6"]


def test_a_limit_of_the_client_is_kept_to() -> None:
    limited = replace(WRITTEN, truncation=Truncation(1.0, post_instruction_tokens=450))
    assert ids(a_retention().kept(limited, messages(200, 200, 200))) == ["m1", "m2"]


async def test_a_conversation_longer_than_the_context_goes_on(base_url: str, fakes: Fakes) -> None:
    long = "the cat is black and the dog is red " * 1000
    async with live(base_url) as client:
        for number in range(5):
            await client.say(f"{number} {long}", id=f"m{number}")
        done = await client.respond()
        assert done["status"] == "completed"
        assert 10_000 < done["usage"]["input_tokens"] < 32_768
        await client.update(truncation="disabled")
        failed = await client.respond()
        assert failed["status"] == "failed"
        assert failed["status_details"]["error"]["code"] == "context_length_exceeded"
        await client.update(truncation={"type": "retention_ratio", "retention_ratio": 0.5})
        fewer = await client.respond()
        assert fewer["status"] == "completed"
        assert fewer["usage"]["input_tokens"] < done["usage"]["input_tokens"]
        assert "conversation.item.deleted" not in [event["type"] for event in client.events]
        kept = await client.ask("conversation.item.retrieve", "conversation.item.retrieved", item_id="m0")
        assert kept["item"]["content"][0]["text"].startswith("0 ")


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
async def test_a_ratio_is_between_nothing_and_all(base_url: str, ratio: float) -> None:
    async with live(base_url) as client:
        truncation = {"type": "retention_ratio", "retention_ratio": ratio}
        error = await client.refused("session.update", session={"type": "realtime", "truncation": truncation})
        assert error["param"].startswith("session.truncation")
