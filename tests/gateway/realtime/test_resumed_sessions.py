"""A client that lost its gateway comes back to its last event at another one: it gets what it missed, and the response
that was being given goes on, nothing twice and nothing missing."""

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.gateway.conftest import MODEL, Fakes
from tests.gateway.realtime.live import Event, live, pcm
from tests.gateway.realtime.returning import (
    Two,
    ask,
    content,
    lost_after,
    numbers,
    outline,
    rest,
    returning,
    said,
    undisturbed,
    until_closed,
)

AUDIO = "response.output_audio.delta"


def ids_replaced(events: list[Event]) -> list[Any]:
    """Of two responses, what must be alike: each id by the order in which it came."""
    known: dict[str, int] = {}
    return [(kind, *(known.setdefault(each, len(known)) for each in ids if each)) for kind, *ids in outline(events)]


async def test_from_every_event_the_client_gets_the_ones_behind_it_again(two: Two, fakes: Fakes) -> None:
    fakes.talker.frames_after_text = 3
    (one, _), (other, _) = two
    had = await undisturbed(one)
    assert numbers(had) == list(range(1, len(had) + 1))
    for count in range(1, len(had) + 1):
        async with returning(other, had[:count]) as client:
            for _ in had[count:]:
                await client.next()
            assert [content(event) for event in client.events] == [content(event) for event in had]
            assert (await client.next())["type"] == "input_audio_buffer.cleared"
        had.append(client.events[-1])


@pytest.mark.parametrize("deltas", [0, 1, 7, 30])
async def test_a_response_goes_on_with_its_ids_and_not_a_sample_twice(two: Two, fakes: Fakes, deltas: int) -> None:
    (one, _), (other, _) = two
    whole = await undisturbed(other)
    fakes.talker.behaviour.pause_seconds = 0.01
    async with live(one) as client:
        await ask(client)
        had = await lost_after(client, AUDIO if deltas else "response.created", deltas or 1)
    await fakes.until_closed()
    fakes.talker.behaviour.pause_seconds = 0
    async with returning(other, had) as client:
        response = await rest(client)
    assert response["status"] == "completed"
    assert said(client.events) == said(whole)
    assert numbers(client.events) == list(range(1, len(client.events) + 1))
    cleared = [event for event in client.events if event["type"] == "input_audio_buffer.cleared"]
    assert ids_replaced([e for e in client.events if e not in cleared]) == ids_replaced(whole)
    assert response["usage"] == whole[-1]["response"]["usage"]
    assert len({e["response_id"] for e in client.events if "response_id" in e}) == 1


async def test_what_was_sent_and_not_read_is_sent_again(two: Two, fakes: Fakes) -> None:
    """A client that is further behind than its gateway thinks."""
    (one, _), (other, _) = two
    whole = await undisturbed(other)
    fakes.talker.behaviour.pause_seconds = 0.01
    async with live(one) as client:
        await ask(client)
        had = await lost_after(client, AUDIO, 20)
    behind = len(had) - 15
    async with returning(other, had[:behind]) as client:
        await rest(client)
    assert [content(event) for event in client.events[: len(had)]] == [content(event) for event in had]
    assert said(client.events) == said(whole)


@pytest.mark.parametrize("encoding", ["pcmu", "pcma"])
async def test_sound_of_another_encoding_goes_on_where_it_was(two: Two, fakes: Fakes, encoding: str) -> None:
    (one, _), (other, _) = two
    output = {"audio": {"output": {"format": {"type": f"audio/{encoding}"}}}}
    whole = await undisturbed(other, **output)
    fakes.talker.behaviour.pause_seconds = 0.01
    async with live(one) as client:
        await ask(client, **output)
        had = await lost_after(client, AUDIO, 20)
    async with returning(other, had) as client:
        await rest(client)
    ours, theirs = said(client.events)[1], said(whole)[1]
    assert len(ours) == len(theirs) > 8000
    assert sum(a != b for a, b in zip(ours, theirs, strict=True)) <= 2, "but for the resampler's rounding"


async def test_a_call_goes_on_within_its_arguments(
    two: Two, fakes: Fakes, write: Callable[[str], tuple[int, ...]]
) -> None:
    (one, _), (other, _) = two
    fakes.thinker.token_ids = write('<tool_call>\n{"name": "find", "arguments": {"city": "Kyoto"}}\n</tool_call>')
    tools = [{"type": "function", "name": "find", "parameters": {"type": "object"}}]
    asked = {"tools": tools, "output_modalities": ["text"]}
    whole = await undisturbed(other, **asked)
    fakes.thinker.behaviour.pause_seconds = 0.03
    async with live(one) as client:
        await ask(client, **asked)
        had = await lost_after(client, "response.function_call_arguments.delta", 2)
    async with returning(other, had) as client:
        response = await rest(client)
    assert json.loads(said(client.events)[2]) == json.loads(said(whole)[2]) == {"city": "Kyoto"}
    (added,) = [e for e in client.events if e["type"] == "response.output_item.added"]
    assert added["item"]["call_id"] == response["output"][0]["call_id"]


async def test_an_answer_that_was_begun_at_a_pause_goes_on_too(two: Two, fakes: Fakes, spoken_question: Any) -> None:
    (one, _), (other, _) = two
    whole = await undisturbed(other)
    fakes.talker.behaviour.pause_seconds = 0.02
    async with live(one) as client:
        await client.speak(*spoken_question)
        had = await lost_after(client, AUDIO, 4)
    async with returning(other, had) as client:
        assert (await rest(client))["status"] == "completed"
    assert said(client.events) == said(whole)
    assert numbers(client.events) == list(range(1, len(client.events) + 1))


async def test_who_interrupts_a_response_that_went_on_had_heard_of_it_what_he_was_sent_before(
    two: Two, fakes: Fakes, spoken_question: Any
) -> None:
    fakes.talker.frames_after_text = 10_000
    (one, _), (other, _) = two
    async with live(one) as client:
        await ask(client)
        await client.until(AUDIO)
        await asyncio.sleep(1.0)
        had = await lost_after(client, AUDIO, 30)
    async with returning(other, had) as client:
        await client.speak(*spoken_question)
        done = await client.until("response.done")
        assert done["response"]["status_details"]["reason"] == "turn_detected"
        cut = await client.until("conversation.item.truncated")
    assert cut["item_id"] == next(event["item_id"] for event in had if event["type"] == AUDIO)
    assert cut["audio_end_ms"] >= 900, "a second went by before the gateway was lost"


async def test_the_conversation_goes_on_behind_a_response_that_went_on(two: Two, fakes: Fakes) -> None:
    (one, _), (other, _) = two
    fakes.talker.behaviour.pause_seconds = 0.01
    async with live(one) as client:
        await ask(client)
        had = await lost_after(client, AUDIO, 3)
    fakes.talker.behaviour.pause_seconds = 0
    async with returning(other, had) as client:
        answer = (await rest(client))["output"][0]
        kept = await client.ask("conversation.item.retrieve", "conversation.item.retrieved", item_id=answer["id"])
        assert kept["item"]["content"][0]["transcript"] == "the cat is black"
        assert (await client.respond())["status"] == "completed"
        last = client.events[-1]
    async with returning(one, client.events[:]) as client:
        assert (await client.respond())["status"] == "completed"
        assert numbers(client.events)[-1] > numbers([last])[0]


async def test_an_older_connection_tells_nothing_more(two: Two, fakes: Fakes) -> None:
    (one, _), (other, _) = two
    whole = await undisturbed(other)
    fakes.talker.behaviour.pause_seconds = 0.03
    async with live(one) as older:
        await ask(older)
        await older.until(AUDIO)
        had = list(older.events)
        async with returning(other, had) as newer:
            await rest(newer)
            assert said(newer.events) == said(whole)
            told = {event["event_id"]: content(event) for event in newer.events}
            assert (await until_closed(older)).code == 1008
            assert older.events[-1]["error"]["code"] == "session_taken_over"
            for event in older.events[:-1]:
                assert told[event["event_id"]] == content(event), "both tell the same of one event"


async def test_a_gateway_that_stops_in_a_response_says_so_and_another_goes_on(two: Two, fakes: Fakes) -> None:
    (one, app), (other, _) = two
    whole = await undisturbed(other)
    fakes.talker.behaviour.pause_seconds = 0.03
    async with live(one) as client:
        await ask(client)
        await client.until(AUDIO)
        await app.state.gate.close(drain_seconds=0.05)
        closed = await until_closed(client)
        assert (closed.code, "Connect again" in closed.reason) == (1012, True)
    fakes.talker.behaviour.pause_seconds = 0
    async with returning(other, client.events) as back:
        assert (await rest(back))["status"] == "completed"
        assert said(back.events) == said(whole)


async def test_sound_that_was_not_committed_is_told_lost(two: Two) -> None:
    (one, _), (other, _) = two
    sound = base64.b64encode(pcm(np.zeros(24_000, np.float32))).decode()
    async with live(one) as client:
        await client.update(audio={"input": {"turn_detection": None}})
        await client.send("input_audio_buffer.append", audio=sound)
        had = await lost_after(client, "session.updated", 1)
    async with returning(other, had) as client:
        assert (await client.next())["type"] == "input_audio_buffer.cleared"
        assert (await client.refused("input_audio_buffer.commit"))["code"] == "input_audio_buffer_commit_empty"
        await client.send("input_audio_buffer.append", audio=sound)
        await client.ask("input_audio_buffer.commit", "conversation.item.done")


async def test_a_transcription_that_was_being_written_is_written_again(two: Two, fakes: Fakes) -> None:
    (one, _), (other, _) = two
    fakes.thinker.behaviour.pause_seconds = 30
    async with live(one) as client:
        sound = {"turn_detection": None, "transcription": {"model": MODEL}}
        await client.update(audio={"input": sound})
        audio = base64.b64encode(pcm(np.zeros(24_000, np.float32))).decode()
        await client.send("input_audio_buffer.append", audio=audio)
        await client.send("input_audio_buffer.commit")
        had = await lost_after(client, "conversation.item.done", 1)
    await fakes.until_closed()
    fakes.thinker.behaviour.pause_seconds = 0
    async with returning(other, had) as client:
        done = await client.until("conversation.item.input_audio_transcription.completed")
        assert done["transcript"] == "the cat is black"
