"""Tools through OpenAI's own SDK: calls come whole and in pieces, are never spoken, and their results go back in."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from openai import AsyncOpenAI

from antiphon.v1.thinker_service_pb2 import GenerateStart
from services.gateway.turns.answer_parts import AnswerForm
from services.gateway.turns.conductor import Conductor
from services.gateway.turns.request import ReasoningDelta, ToolCallDelta, TurnEnd
from tests.gateway.conftest import MODEL, Fakes, body, spoken
from tests.gateway.turns import SPEECH, Write, asked, conduct, spoken_ids, text_of

ARGUMENTS = '{"city": "Bonn", "days": [1, 2]}'
CALL = f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>'
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "how the weather is",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
QUESTION: Any = [{"role": "user", "content": "how is the weather in bonn"}]
FORM = AnswerForm(tools=frozenset({"weather"}))


@pytest.fixture
async def sdk(base_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


async def test_a_call_comes_whole(sdk: AsyncOpenAI, fakes: Fakes, write: Write) -> None:
    fakes.thinker.token_ids = write(CALL)
    answer = await sdk.chat.completions.create(model=MODEL, messages=QUESTION, tools=TOOLS)
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    [call] = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("weather", ARGUMENTS)
    assert call.id.startswith("call_")


async def test_a_call_comes_in_pieces_as_openai_streams_it(sdk: AsyncOpenAI, fakes: Fakes, write: Write) -> None:
    fakes.thinker.token_ids = write(f"one moment {CALL}\n{CALL}")
    stream = await sdk.chat.completions.create(model=MODEL, messages=QUESTION, tools=TOOLS, stream=True)
    chunks = [chunk.choices[0] async for chunk in stream]
    assert "".join(choice.delta.content or "" for choice in chunks) == "one moment"
    calls = [call for choice in chunks for call in choice.delta.tool_calls or []]
    firsts = [call for call in calls if call.id is not None]
    assert [(call.index, call.type, call.function and call.function.name) for call in firsts] == [
        (0, "function", "weather"),
        (1, "function", "weather"),
    ]
    assert [call.function.arguments for call in firsts if call.function] == ["", ""]
    assert len({call.id for call in firsts}) == 2
    for index in (0, 1):
        pieces = [call.function.arguments or "" for call in calls if call.index == index and call.function]
        assert len(pieces) > 3
        assert "".join(pieces) == ARGUMENTS
    assert [choice.finish_reason for choice in chunks] == [None] * (len(chunks) - 1) + ["tool_calls"]


async def test_the_sdks_stream_helper_puts_it_together(sdk: AsyncOpenAI, fakes: Fakes, write: Write) -> None:
    fakes.thinker.token_ids = write(CALL)
    async with sdk.chat.completions.stream(model=MODEL, messages=QUESTION, tools=TOOLS) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.tool_calls is not None
    assert final.choices[0].message.tool_calls[0].function.arguments == ARGUMENTS


async def test_results_go_back_into_the_prompt(sdk: AsyncOpenAI, fakes: Fakes, write: Write) -> None:
    fakes.thinker.token_ids = write(CALL)
    first = await sdk.chat.completions.create(model=MODEL, messages=QUESTION, tools=TOOLS)
    said: Any = first.choices[0].message
    [call] = said.tool_calls
    fakes.thinker.token_ids = write("it rains")
    second = await sdk.chat.completions.create(
        model=MODEL,
        messages=[*QUESTION, said, {"role": "tool", "tool_call_id": call.id, "content": "rain"}],
        tools=TOOLS,
    )
    assert second.choices[0].message.content == "it rains"
    assert second.choices[0].finish_reason == "stop"
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


async def test_only_one_call_where_they_may_not_be_parallel(sdk: AsyncOpenAI, fakes: Fakes, write: Write) -> None:
    fakes.thinker.token_ids = write(f"{CALL}\n{CALL}")
    answer = await sdk.chat.completions.create(
        model=MODEL, messages=QUESTION, tools=TOOLS, parallel_tool_calls=False, stream=False
    )
    assert len(answer.choices[0].message.tool_calls or []) == 1
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_with_tool_choice_none_a_call_is_text(sdk: AsyncOpenAI, fakes: Fakes, write: Write) -> None:
    fakes.thinker.token_ids = write(CALL)
    answer = await sdk.chat.completions.create(model=MODEL, messages=QUESTION, tools=TOOLS, tool_choice="none")
    assert answer.choices[0].message.content == CALL
    assert answer.choices[0].finish_reason == "stop"


async def test_a_call_is_never_spoken(conductor: Conductor, fakes: Fakes, write: Write) -> None:
    fakes.thinker.token_ids = write(f"one moment\n{CALL}\nthanks")
    events = await conduct(conductor, replace(asked(speech=SPEECH, limit=300), form=FORM))
    assert spoken_ids(fakes) == list(write("one moment"))[:-1]
    assert text_of(events) == "one momentthanks"
    assert "".join(event.arguments for event in events if isinstance(event, ToolCallDelta)) == ARGUMENTS


async def test_what_is_no_call_after_all_is_told_and_not_spoken(
    conductor: Conductor, fakes: Fakes, write: Write
) -> None:
    fakes.thinker.token_ids = write(f"so {CALL.replace('weather', 'bomb')}")
    events = await conduct(conductor, replace(asked(speech=SPEECH, limit=300), form=FORM))
    assert spoken_ids(fakes) == list(write("so"))[:-1]
    assert text_of(events) == f"so{CALL.replace('weather', 'bomb')}"
    assert [event.finish_reason for event in events if isinstance(event, TurnEnd)] == ["stop"]


async def test_thoughts_are_told_apart_counted_and_never_spoken(
    conductor: Conductor, fakes: Fakes, write: Write
) -> None:
    fakes.thinker.token_ids = write("<think>\nhm, a cat\n</think>\n\na cat")
    events = await conduct(conductor, replace(asked(speech=SPEECH, limit=300), form=AnswerForm(thinks=True)))
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "hm, a cat"
    assert text_of(events) == "a cat"
    assert spoken_ids(fakes) == list(write("a cat"))[:-1]
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert 0 < end.reasoning_tokens < end.text_tokens


async def test_thinker_is_given_the_grammar_of_a_required_call(client: Any, fakes: Fakes, write: Write) -> None:
    fakes.thinker.token_ids = write(CALL)
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = await client.post("/v1/chat/completions", json=body(tools=TOOLS, tool_choice=choice))
        assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"
    starts: list[GenerateStart] = [
        request.start for request in fakes.thinker.behaviour.received if request.HasField("start")
    ]
    assert all('"name\\": \\"weather\\"' in start.grammar.lark for start in starts)
    assert [(" {0," in start.grammar.lark or "){0," in start.grammar.lark) for start in starts] == [True, False]


async def test_a_spoken_request_that_only_calls_has_no_sound(client: Any, fakes: Fakes, write: Write) -> None:
    fakes.thinker.token_ids = write(CALL)
    answer = await client.post("/v1/chat/completions", json=spoken(tools=TOOLS))
    message = answer.json()["choices"][0]["message"]
    assert message["audio"] is None
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == json.loads(ARGUMENTS)
    assert message["content"] is None
