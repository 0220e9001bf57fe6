"""Answers that must be of a form are, by nano and by OpenAI's own SDK: JSON of a schema, and calls."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field

from tests.end_to_end.platform import Platform

QUESTION: Any = [{"role": "user", "content": "what is the opposite of hot"}]
FAR = {"type": "integer", "minimum": 0, "maximum": 99}
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"side": {"enum": ["left", "right"]}, "far": FAR},
                "required": ["side"],
                "additionalProperties": False,
            },
        },
    }
    for name in ("turn", "walk")
]


class Opposite(BaseModel):
    # nano never learnt to end a string.
    word: str = Field(max_length=8)
    certain: bool


@pytest.fixture
def sdk(nano_platform: Platform) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{nano_platform.parts.base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("seed", range(4))
def test_json_of_a_schema(sdk: OpenAI, seed: int) -> None:
    answer = sdk.chat.completions.parse(
        model="nano", messages=QUESTION, response_format=Opposite, temperature=1, seed=seed, max_tokens=800
    )
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, Opposite)


def test_any_json_object(sdk: OpenAI) -> None:
    ended = 0
    for seed in range(4):
        answer = sdk.chat.completions.create(
            model="nano", messages=QUESTION, response_format={"type": "json_object"}, temperature=1, seed=seed
        )
        if answer.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)
            ended += 1
    assert ended


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "walk"}}])
def test_a_call_where_one_is_required(sdk: OpenAI, choice: Any) -> None:
    for seed in range(3):
        answer = sdk.chat.completions.create(
            model="nano", messages=QUESTION, tools=TOOLS, tool_choice=choice, temperature=1, seed=seed, max_tokens=1500
        )
        assert answer.choices[0].message.content is None
        calls: list[Any] = answer.choices[0].message.tool_calls or []
        assert calls
        if answer.choices[0].finish_reason != "length":
            assert answer.choices[0].finish_reason == "tool_calls"
            for call in calls:
                jsonschema.validate(json.loads(call.function.arguments), TOOLS[0]["function"]["parameters"])
        assert {call.function.name for call in calls} <= ({"walk"} if isinstance(choice, dict) else {"turn", "walk"})
    assert isinstance(choice, str) or len(calls) == 1


def test_a_required_call_in_a_stream(sdk: OpenAI) -> None:
    with sdk.chat.completions.stream(
        model="nano", messages=QUESTION, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, seed=1
    ) as stream:
        final = stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls or []
    jsonschema.validate(json.loads(call.function.arguments), TOOLS[0]["function"]["parameters"])


def test_a_schema_that_cannot_be_is_refused_by_its_path(sdk: OpenAI) -> None:
    schema: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strin"}}}
    with pytest.raises(openai.BadRequestError, match="Invalid type: strin") as refused:
        sdk.chat.completions.create(model="nano", messages=QUESTION, response_format=schema)
    assert refused.value.param == "response_format.json_schema.schema"
    bad_tool: Any = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": 3}}}}}]
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(model="nano", messages=QUESTION, tools=bad_tool, tool_choice="required")
    assert refused.value.param == "tools"


def test_without_tools_being_asked_for_nano_answers_as_ever(sdk: OpenAI) -> None:
    free = sdk.chat.completions.create(model="nano", messages=QUESTION)
    assert "cold" in (free.choices[0].message.content or "").lower()
